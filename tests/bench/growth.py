#!/usr/bin/env python3
"""Measures how the cost of a migration by copy grows: with the number of tables, with the size of one, and with the number of jobs.

Starts its own two servers and removes them at the end. Each size is moved once, into a fresh database, and compared by `pgstream verify`.
"""

import argparse
import json
import os
import sys

import peers
from database import fill_database, fill_table, say, script
from servers import Failure, Servers, add_common_options, load, program, run

# Whoever reads or makes very many tables in one transaction locks them all.
SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB", "autovacuum": "off", "max_locks_per_transaction": 4096}

TABLES = """DO $$ BEGIN FOR i IN {first}..{last} LOOP
  EXECUTE format('CREATE TABLE t%s (id integer PRIMARY KEY, v text)', i); EXECUTE format('INSERT INTO t%s VALUES (%s)', i, i);
END LOOP; END $$"""


def fill_tables(servers, name, count):
    for first in range(0, count, 500):
        script(servers, name, TABLES.format(first=first, last=min(count, first + 500) - 1))


class Growth:
    def __init__(self, options, servers):
        self.options, self.servers, self.figures = options, servers, []

    def move(self, what, jobs):
        """One migration of the database `grown` with so many jobs."""
        self.options.jobs = jobs
        servers, uri = self.servers, lambda server, database: server.uri(database)
        servers.target.psql("postgres", "CREATE DATABASE grown", "CHECKPOINT")
        servers.source.psql("postgres", "CHECKPOINT")
        busy = load()
        used = peers.Pgstream(self.options, servers, uri).copy("grown", "grown")
        run([self.options.pgstream, "verify", "--source", uri(servers.source, "grown"), "--target", uri(servers.target, "grown")])
        servers.target.psql("postgres", "DROP DATABASE grown")
        size = int(servers.source.psql("grown", "SELECT pg_database_size(current_database())"))
        figures = {"what": what, "jobs": jobs, "bytes": size, "seconds": used.seconds, "processor_seconds": used.processor, "peak_memory_kb": used.memory, "load": busy}
        self.figures.append(figures)
        print(f"{what:34} {jobs:3} jobs {size / 1e9:7.2f} GB {used.seconds:8.1f} s   own processor time {used.processor:6.1f} s, peak memory {used.memory / 1000:4.0f} MB", flush=True)

    def each(self, what, fill, jobs):
        say(f"filling the source: {what}")
        self.servers.source.psql("postgres", "CREATE DATABASE grown")
        fill(self.servers, "grown")
        self.servers.source.psql("grown", "VACUUM (ANALYZE)")
        for number in jobs:
            self.move(what, number)
        self.servers.source.psql("postgres", "DROP DATABASE grown")


def numbers(kind):
    return lambda text: [kind(word) for word in text.split(",") if word]


def main():
    parser = argparse.ArgumentParser(prog="tests/bench.sh growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=numbers(int), default=[1_000, 10_000, 100_000], metavar="N,…", help="tables of one row each (1000,10000,100000); empty for none")
    parser.add_argument("--rows", type=numbers(float), default=[1, 10, 50], metavar="N,…", help="millions of rows of one table, 77 MB for each million (1,10,50)")
    parser.add_argument("--jobs", type=numbers(int), default=[1, 2, 4, 8, 16], metavar="N,…", help="jobs for a mixed database of 0.7 GB (1,2,4,8,16)")
    add_common_options(parser)
    options = parser.parse_args()
    options.pgstream = program(options.pgstream)
    jobs = options.jobs
    with Servers(options.source, options.target, SETTINGS) as servers:
        print(f"PostgreSQL {options.source} to {options.target}, {os.cpu_count()} processors", flush=True)
        growth = Growth(options, servers)
        for count in options.tables:
            growth.each(f"{count:,} tables of one row", lambda servers, name: fill_tables(servers, name, count), [2])
        for millions in options.rows:
            growth.each(f"a table of {millions:g} million rows", lambda servers, name: fill_table(servers, name, millions / 10), [2])
        if jobs:
            growth.each("a mixed database", lambda servers, name: fill_database(servers, name, 0.4), jobs)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(growth.figures, file, indent=1)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench: {failure}")
