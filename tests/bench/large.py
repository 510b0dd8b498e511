#!/usr/bin/env python3
"""Large things: transactions, values, catalogs. Moves each between two servers of its own, compares both sides, and prints time and pgstream's peak memory.

A figure above its limit is a failure, and so is a difference. Scenarios are scaled to the machine with --scale; 1 is what the names say.
"""

import argparse
import json
import subprocess
import sys
import time

from servers import Failure, Servers, load, peak_memory, program, wait_for

SETTINGS = {
    "wal_level": "logical",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "fsync": "off",
    "autovacuum": "off",
    "max_locks_per_transaction": 4096,
    "max_connections": 60,
}

# What a stream may take, in kB.
STREAM_PEAK = 64 * 1024


def say(text):
    print(f"large: {text}", file=sys.stderr, flush=True)


class Run:
    """A pgstream that runs, and the most memory it had."""

    def __init__(self, options, servers, command, *arguments):
        pair = ["--source", servers.source.uri("app"), "--target", servers.target.uri("app")]
        self.begun, self.peak = time.monotonic(), 0
        self.process = subprocess.Popen(
            [options.pgstream, command, *pair, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def look(self):
        self.peak = max(self.peak, peak_memory(self.process.pid))
        return self.process.poll() is not None

    def end(self, *codes):
        while not self.look():
            time.sleep(0.05)
        stdout, stderr = self.process.communicate()
        self.seconds = time.monotonic() - self.begun
        if self.process.returncode not in (codes or (0,)):
            raise Failure(f"pgstream ended with exit code {self.process.returncode}: {stderr.strip()}")
        return stdout + stderr


def verify(options, servers):
    Run(options, servers, "verify").end()


def copied(options, servers):
    """A migration by copy, compared."""
    done = Run(options, servers, "migrate", "--method", "copy", "--jobs", "2")
    done.end()
    verify(options, servers)
    return {"seconds": done.seconds, "peak_kb": done.peak}


def transaction(options, servers, before=()):
    """One transaction of many rows, while the source is followed; rows that it rolls back among them."""
    rows = int(10_000_000 * options.scale)
    servers.source.psql("app", "CREATE TABLE t (id bigint PRIMARY KEY, v text)", *before)
    migrate = Run(options, servers, "migrate", "--method", "replication")
    in_step = lambda: migrate.look() or servers.target.psql("app", "SELECT phase FROM pgstream.migration") == "syncing"
    wait_for(lambda: servers.target.psql("app", "SELECT to_regclass('pgstream.migration')") or migrate.look(), "the migration")
    wait_for(in_step, "being in step")
    quiet = migrate.peak
    begun = time.monotonic()
    servers.source.psql(
        "app",
        f"DO $$ BEGIN INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, {rows}) i; "
        f"BEGIN INSERT INTO t SELECT -i, 'gone' FROM generate_series(1, {rows // 100}) i; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN END; END $$",
    )
    written = time.monotonic() - begun
    there = lambda: migrate.look() or servers.target.psql("app", "SELECT EXISTS (SELECT FROM t)") == "t"
    wait_for(there, "the transaction", seconds=3600, step=0.2)
    applied = time.monotonic() - begun
    Run(options, servers, "cutover").end()
    migrate.end()
    verify(options, servers)
    if migrate.peak > STREAM_PEAK:
        raise Failure(f"the stream took {migrate.peak} kB at its peak, and {STREAM_PEAK} kB are allowed")
    return {"rows": rows, "written_s": written, "applied_s": applied, "quiet_kb": quiet, "peak_kb": migrate.peak}


def streamed(options, servers):
    servers.source.psql("postgres", "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'", "SELECT pg_reload_conf()")
    return transaction(options, servers)


def values(options, servers):
    """Values of 900 MB: those with a text form, and one that has none."""
    size = int(900 * options.scale)
    large = f"(SELECT string_agg(c, '') FROM (SELECT repeat(md5(i::text), 32768) c FROM generate_series(1, {size}) i) s)"
    servers.source.psql("app", "CREATE TABLE t (id integer PRIMARY KEY, v text)", f"INSERT INTO t SELECT 1, {large}")
    servers.source.psql("app", "CREATE TABLE b (id integer PRIMARY KEY, v bytea)", f"INSERT INTO b SELECT 1, convert_to(v, 'UTF8') FROM t")
    result = copied(options, servers) | {"value_mb": size}
    # With a column that is not sent in binary form, a value above half a gigabyte can't be sent at all.
    servers.source.psql("app", "CREATE TYPE mood AS ENUM ('good')", "ALTER TABLE b ADD m mood")
    again = Run(options, servers, "migrate", "--method", "copy", "--restart")
    said = again.end(0, 1)
    if size > 512 and not ('table "public.b"' in said and "v" in said):
        raise Failure(f"the table and column are not named: {said}")
    return result | {"without_text_form": said.strip().splitlines()[0][:150]}


def tables(options, servers):
    count = int(100_000 * options.scale)
    step = 500
    for first in range(0, count, step):
        last = min(count, first + step) - 1
        servers.source.psql(
            "app",
            f"DO $$ BEGIN FOR i IN {first}..{last} LOOP EXECUTE format('CREATE TABLE t%s (id integer, v text)', i); "
            f"EXECUTE format('INSERT INTO t%s VALUES (%s)', i, i); END LOOP; END $$",
        )
    return copied(options, servers) | {"tables": count}


def partitions(options, servers):
    count = int(10_000 * options.scale)
    servers.source.psql("app", "CREATE TABLE p (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    for first in range(0, count, 500):
        last = min(count, first + 500) - 1
        servers.source.psql(
            "app",
            f"DO $$ BEGIN FOR i IN {first}..{last} LOOP EXECUTE format('CREATE TABLE p%s PARTITION OF p FOR VALUES FROM (%s) TO (%s)', i, i * 10, i * 10 + 10); END LOOP; END $$",
        )
    servers.source.psql("app", f"INSERT INTO p SELECT i, 'v' FROM generate_series(0, {count * 10 - 1}) i")
    return copied(options, servers) | {"partitions": count}


def sequences(options, servers):
    count = int(5_000 * options.scale)
    servers.source.psql(
        "app",
        f"DO $$ BEGIN FOR i IN 1..{count} LOOP EXECUTE format('CREATE SEQUENCE s%s START %s', i, i); IF i % 2 = 0 THEN PERFORM nextval('s' || i); END IF; END LOOP; END $$",
    )
    return copied(options, servers) | {"sequences": count}


def large_objects(options, servers):
    count = int(1_000_000 * options.scale)
    for first in range(0, count, 20_000):
        size = min(20_000, count - first)
        servers.source.psql("app", f"SELECT count(lo_from_bytea({first} + 20000 + i, decode(md5(i::text), 'hex'))) FROM generate_series(1, {size}) i")
    return copied(options, servers) | {"large_objects": count}


# Name, what it is, the source's major, the work.
SCENARIOS = [
    ("streamed", "a transaction of 10 million rows, streamed while it runs", 16, streamed),
    ("older", "the same, from a server that sends it when it commits", 13, transaction),
    ("values", "values of 900 MB", 16, values),
    ("tables", "100,000 tables", 16, tables),
    ("partitions", "10,000 partitions", 16, partitions),
    ("sequences", "5,000 sequences", 16, sequences),
    ("objects", "a million large objects", 16, large_objects),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="*", help="all, where none is named: " + ", ".join(name for name, *_ in SCENARIOS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--target", type=int, default=17, help="major of the target")
    parser.add_argument("--pgstream", help="the program; if left out, a release build is made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.scenario) - {name for name, *_ in SCENARIOS}:
        parser.error(f"unknown scenario {', '.join(unknown)}")
    options.pgstream = program(options.pgstream)
    failed, results = False, {}
    for name, title, major, work in SCENARIOS:
        if options.scenario and name not in options.scenario:
            continue
        say(f"{title}, scaled by {options.scale:g} (load {load():.1f})")
        try:
            with Servers(major, options.target, SETTINGS) as servers:
                for server in (servers.source, servers.target):
                    server.psql("postgres", "CREATE DATABASE app")
                results[name] = work(options, servers)
        except Failure as failure:
            failed, results[name] = True, {"failure": str(failure)}
        say("; ".join(f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in results[name].items()))
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for name, result in results.items():
            print(f"{name}: " + "; ".join(f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in result.items()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
