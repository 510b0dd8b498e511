#!/usr/bin/env bash
# A long run: a database is followed while an application writes to it, while tables beside it come, change and go, and while pgstream, its sessions and
# both servers are killed at random; every few minutes both sides are compared. At the end it cuts over, compares again, prints what
# happened, and draws lag, memory and retained log over time.
#
#   tests/soak.sh HOURS [--picture FILE] [--check MINUTES] [--rate N] [--seed N] [--source MAJOR] [--target MAJOR] [--pgstream PATH]
#
# HOURS may be a fraction. The picture, an SVG, is soak.svg in the current folder if left out; --help says more. Exit code 1: something was lost, doubled
# or hung.
set -euo pipefail
exec python3 "$(dirname "$0")/bench/soak.py" "$@"
