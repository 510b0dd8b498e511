#!/usr/bin/env python3
"""Measures the copy of a large schema without rows: `pgstream migrate --schema-only` and `pg_dump -s | psql`, in turns, over unix sockets, or over
a proxy that delays what is sent to both servers and back.

Starts its own two servers and removes them at the end. Each round runs both into a fresh database each, in alternating order; the ratio is the
median of the rounds' own ratios, since what else the machine does changes between rounds more than within one.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time

from peers import client
from proxy import Distant
from servers import Failure, Servers, add_common_options, load, program

SETTINGS = {"shared_buffers": "256MB", "autovacuum": "off", "max_wal_size": "4GB"}


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def schema(tables, indexes, views, functions):
    """Statements for so many of each; indexes are beside the primary keys."""
    yield "CREATE SCHEMA app"
    for n in range(functions):
        yield f"CREATE FUNCTION app.f{n}(a integer, b text DEFAULT 'x') RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT b || (a + {n}) $$"
    for n in range(tables):
        reference = f" REFERENCES app.t{n - 1} (id)" if n % 4 == 3 else ""
        yield (
            f"CREATE TABLE app.t{n} (id bigint PRIMARY KEY, parent bigint{reference}, name text NOT NULL DEFAULT 'none', amount numeric(12,2) CHECK (amount >= 0), "
            f"state varchar(20), details jsonb DEFAULT '{{}}', tags text[], made timestamptz DEFAULT now(), changed timestamptz, flag boolean NOT NULL DEFAULT false)"
        )
    for n in range(indexes):
        columns = ("(name)", "(made, state)", "(lower(name)) WHERE flag")[n // tables % 3]
        yield f"CREATE INDEX i{n} ON app.t{n % tables} {columns}"
    for n in range(views):
        yield f"CREATE VIEW app.v{n} AS SELECT a.id, a.name, sum(b.amount) AS total FROM app.t{n % tables} a LEFT JOIN app.t{(n + 1) % tables} b ON b.parent = a.id GROUP BY a.id, a.name"


def timed(command):
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"{command[0]} ended with exit code {done.returncode}: {done.stderr.strip()}")
    return time.monotonic() - begun


def measure(options):
    sizes = options.tables, options.indexes, options.views, options.functions
    with Servers(options.source, options.target, SETTINGS) as servers, contextlib.ExitStack() as proxies:
        if options.round_trip:
            distant = {server: proxies.enter_context(Distant(server.port, options.round_trip / 1000)) for server in (servers.source, servers.target)}
            way = lambda server: f"host=127.0.0.1 port={distant[server].port}"
        else:
            way = lambda server: f"host={servers.home} port={server.port}"
        at = lambda server, name: f"{way(server)} user=postgres dbname={name}"
        say("making the schema: {} tables, {} indexes, {} views, {} functions".format(*sizes))
        servers.source.psql("postgres", "CREATE DATABASE large")
        # Each statement for itself: one transaction would need more locks than a server has by default.
        script = ";\n".join(schema(*sizes))
        subprocess.run(servers.source.command("large") + ["-f", "-"], input=script, text=True, check=True, stdout=subprocess.DEVNULL)
        servers.source.psql("large", "VACUUM ANALYZE")
        rounds = []
        for number in range(options.rounds):
            figures = {}
            programs = [("pgstream", of_pgstream), ("pg_dump", of_pg_dump)]
            for name, command in programs if number % 2 == 0 else reversed(programs):
                target = f"{name}_{number}"
                servers.target.psql("postgres", f"CREATE DATABASE {target} TEMPLATE template0")
                before = [server.processor_time() for server in (servers.source, servers.target)]
                figures[name] = timed(command(options, servers, at(servers.source, "large"), at(servers.target, target)))
                after = [server.processor_time() for server in (servers.source, servers.target)]
                for side, spent in zip(("source", "target"), (b - a for a, b in zip(before, after))):
                    figures[f"{name}_{side}_processor"] = spent
                # The database stays: ext4 looks past each inode that was deleted in the last minutes whenever a file is made, which would
                # double the time of whoever comes after a drop of 20,000 files.
            say("round {}: pgstream {:.2f} s, pg_dump | psql {:.2f} s; load {:.1f}".format(number + 1, figures["pgstream"], figures["pg_dump"], load()))
            rounds.append(figures)
    return {
        "ratio": statistics.median(figures["pgstream"] / figures["pg_dump"] for figures in rounds),
        **{name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]},
    }


def of_pgstream(options, servers, source, target):
    return [options.pgstream, "migrate", "--quiet", "--method", "copy", "--schema-only", "--jobs", str(options.jobs), "--source", source, "--target", target]


def of_pg_dump(options, servers, source, target):
    return ["bash", "-c", 'set -o pipefail; "$0" -s -d "$1" | "$2" -Xq -v ON_ERROR_STOP=1 -o /dev/null -d "$3"', client(servers, "pg_dump"), source, servers.clients / "psql", target]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, count in (("tables", 2000), ("indexes", 6000), ("views", 1000), ("functions", 1000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-trip", type=float, default=0, metavar="MS", help="milliseconds to each server and back; 0 is a unix socket")
    parser.add_argument("--jobs", type=int, default=2)
    add_common_options(parser)
    options = parser.parse_args()
    options.pgstream = program(options.pgstream)
    figures = measure(options)
    for name in ("pgstream", "pg_dump"):
        title = "pg_dump -s | psql" if name == "pg_dump" else name
        print("{:18} {:6.2f} s   processor time of the servers: source {:.2f} s, target {:.2f} s".format(title, figures[name], figures[f"{name}_source_processor"], figures[f"{name}_target_processor"]))
    print("ratio {:.2f} (median of {} rounds)".format(figures["ratio"], options.rounds))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    try:
        main()
    except (Failure, subprocess.CalledProcessError) as failure:
        sys.exit(f"bench: {failure}")
