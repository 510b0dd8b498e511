#!/usr/bin/env python3
"""Measures how long an application stands still at a cutover: from its last commit on the source until `pgstream cutover` has ended.

Starts its own two servers and removes them at the end. Tables with a sequence each are followed under a steady rate of writes, and cut over with
--make-source-read-only; both sides are compared by `pgstream verify` afterwards.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from proxy import Distant
from servers import Failure, Servers, add_common_options, load, program, run, wait_for

SETTINGS = {"wal_level": "logical", "shared_buffers": "256MB", "max_wal_size": "4GB", "max_locks_per_transaction": 4096}

TABLES = """DO $$ BEGIN FOR i IN {first}..{last} LOOP
  EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, v text, w integer)', i);
  EXECUTE format('INSERT INTO t%s (v, w) SELECT md5(g::text), g FROM generate_series(1, 1000) g', i);
  EXECUTE format('CREATE INDEX ON t%s (w)', i);
END LOOP; END $$"""


def say(text):
    print(f"cutover: {text}", file=sys.stderr, flush=True)


def move(options, servers, rate, milliseconds):
    source, target = servers.source, servers.target
    target.psql("postgres", "CREATE DATABASE app")
    # As the last round has left it.
    source.psql("postgres", "ALTER DATABASE app RESET default_transaction_read_only")
    source.psql("app", "CREATE TABLE IF NOT EXISTS beat (id bigserial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
    with tempfile.TemporaryDirectory() as folder, Distant(source.port, milliseconds / 1000) as far_source, Distant(target.port, milliseconds / 1000) as far_target:
        servers_named = ["--source", source.uri("app", far_source.port if milliseconds else None), "--target", target.uri("app", far_target.port if milliseconds else None)]
        script = pathlib.Path(folder) / "beat.sql"
        tables = options.tables
        script.write_text(f"\\set t random(1, {tables})\nBEGIN;\nINSERT INTO beat DEFAULT VALUES;\nUPDATE t:t SET w = w + 1 WHERE id = 7;\nINSERT INTO t:t (v, w) VALUES ('new', 1);\nCOMMIT;\n")
        log = open(pathlib.Path(folder) / "migrate.log", "w+")
        migrate = subprocess.Popen([options.pgstream, "migrate", "--quiet", "--method", "replication", *servers_named], stdout=log, stderr=log)
        writing = None
        try:
            status = "SELECT coalesce((SELECT phase = 'syncing' FROM pgstream.migration), false)"

            def in_step():
                if migrate.poll() is not None:
                    log.seek(0)
                    raise Failure(f"migrate ended with exit code {migrate.returncode}: {log.read()[-2000:]}")
                there = target.psql("app", "SELECT to_regclass('pgstream.migration') IS NOT NULL") == "t"
                return there and target.psql("app", status) == "t"

            wait_for(in_step, "the migration to be in step", step=0.5)
            busy = load()
            writing = subprocess.Popen(
                [servers.clients / "pgbench", "-n", "-c", "4", "-j", "2", "-R", str(rate), "-T", "3600", "-f", script, source.uri("app")],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            time.sleep(5)
            begun = time.time()
            run([options.pgstream, "cutover", "--quiet", "--make-source-read-only", *servers_named])
            ended = time.time()
            migrate.wait()
        finally:
            for process in filter(None, (writing, migrate)):
                process.kill()
                process.wait()
        last = float(source.psql("app", "SELECT extract(epoch FROM max(at)) FROM beat"))
        run([options.pgstream, "verify", "--source", source.uri("app"), "--target", target.uri("app")])
        figures = {"standstill_seconds": ended - last, "cutover_seconds": ended - begun, "load": busy}
    target.psql("postgres", "DROP DATABASE app")
    return figures


def main():
    parser = argparse.ArgumentParser(prog="tests/bench.sh cutover", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--tables", type=int, default=1_000, help="tables of 1,000 rows with a sequence each (1000)")
    parser.add_argument("--rate", type=int, default=500, help="transactions a second until the cutover (500)")
    parser.add_argument("--round-trip", type=float, default=0, metavar="MS", help="both servers are so far away from pgstream (0)")
    add_common_options(parser)
    options = parser.parse_args()
    options.pgstream = program(options.pgstream)
    rounds = []
    with Servers(options.source, options.target, SETTINGS) as servers:
        say(f"filling {options.tables:,} tables; PostgreSQL {options.source} to {options.target}, {os.cpu_count()} processors")
        servers.source.psql("postgres", "CREATE DATABASE app")
        for first in range(1, options.tables + 1, 500):
            servers.source.psql("app", TABLES.format(first=first, last=min(options.tables, first + 499)))
        for number in range(options.rounds):
            figures = move(options, servers, options.rate, options.round_trip)
            rounds.append(figures)
            print(f"round {number + 1}: the application stood still for {figures['standstill_seconds']:.2f} s of the cutover's {figures['cutover_seconds']:.2f} s; load {figures['load']:.1f}", flush=True)
    median = statistics.median(figures["standstill_seconds"] for figures in rounds)
    print(f"median {median:.2f} s with {options.tables:,} tables at {options.rate} transactions/s, {options.round_trip:g} ms away")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"tables": options.tables, "rate": options.rate, "round_trip": options.round_trip, "median_standstill_seconds": median, "rounds": rounds}, file, indent=1)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"cutover: {failure}")
