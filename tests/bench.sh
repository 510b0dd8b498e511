#!/usr/bin/env bash
# Measures pgstream and what an operator would use without it, in turns on the same servers, which it starts itself and removes at the end. Prints
# medians and ratios, and writes them as JSON where that is asked for.
#
#   tests/bench.sh copy [ROUNDS] [OPTION]…     whole migrations by copy: a 1.5 GB database, a table of 10 million rows, 200 small tables far away;
#                                              against pg_dump and pg_restore, pg_dump | psql, a pipe made by hand, pgcopydb, a subscription
#   tests/bench.sh schema [OPTION]…            a large schema without rows, against pg_dump -s | psql
#   tests/bench.sh stream [ROUNDS] [OPTION]…   backlogs and the delay under a steady rate, against a subscription
#   tests/bench.sh large [SCENARIO]… [OPTION]… large things: transactions, values, catalogs
#   tests/bench.sh growth [OPTION]…            how the cost of a copy grows with tables, rows and jobs
#   tests/bench.sh cutover [ROUNDS] [OPTION]…  how long an application stands still at a cutover
#   tests/bench.sh all [FOLDER]                copy, schema and stream with their floors, one after the other; JSON files in FOLDER if given
#
# Each says more with --help. A machine that does other work at the same time makes the figures worse, and the ratios less certain: the load is printed
# with each round.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)/bench
case ${1-} in
  copy) exec python3 "$here/database.py" "${@:2}" ;;
  schema | stream | large | growth | cutover) exec python3 "$here/$1.py" "${@:2}" ;;
  all)
    folder=${2-}
    python3 "$here/database.py" --floor ${folder:+--json "$folder/copy.json"}
    python3 "$here/schema.py" ${folder:+--json "$folder/schema.json"}
    python3 "$here/schema.py" --round-trip 20 --tables 300 --indexes 900 --views 150 --functions 150 ${folder:+--json "$folder/schema-far.json"}
    python3 "$here/stream.py" --floor ${folder:+--json "$folder/stream.json"}
    ;;
  '' | --help | -h) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//p}' "$0" ;;
  *) echo "bench.sh: unknown command $1; --help lists them" >&2; exit 2 ;;
esac
