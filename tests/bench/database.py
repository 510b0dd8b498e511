#!/usr/bin/env python3
"""Measures whole migrations by copy against what an operator would type without pgstream, in turns on the same two servers.

Starts its own servers and removes them at the end. Each round runs every way once, into a fresh database each, in an order that turns from round to
round; a ratio is the median of the rounds' own ratios, since what else the machine does changes between rounds more than within one.
The rows are compared at the end: a fast copy that isn't one would be worth nothing.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys

import peers
from proxy import Distant
from servers import Failure, Servers, add_common_options, load, program, run

SETTINGS = {"shared_buffers": "128MB", "max_wal_size": "2GB", "wal_level": "logical"}

DATABASE = """
CREATE TABLE wide (id bigint PRIMARY KEY, doc jsonb, numbers bigint[], words text[], price numeric(12,2), rate numeric,
  made timestamptz, seen timestamp, note text, flag boolean, code varchar(20), token uuid);
INSERT INTO wide
  SELECT i,
    jsonb_build_object('id', i, 'name', md5(i::text), 'tags', jsonb_build_array(i % 7, i % 11, 'x' || i % 100),
      'nested', jsonb_build_object('a', i * 1.5, 'b', null)),
    ARRAY[i, i % 100, i * 7919 % 1000], ARRAY['w' || i % 1000, md5((i % 5000)::text)],
    (i * 7919 % 10000000) / 100.0, 1.0 / i,
    '2020-01-01'::timestamptz + i * interval '31 seconds', '2021-01-01'::timestamp + i * interval '7.5 seconds',
    repeat(md5(i::text), 1 + (i % 4)::integer), i % 3 = 0, 'C' || i % 100000, md5(i::text)::uuid
  FROM generate_series(1, {wide}::bigint) i;
CREATE INDEX ON wide (made);
CREATE INDEX ON wide (code);
CREATE INDEX ON wide (price, flag);
CREATE TABLE narrow (id integer PRIMARY KEY, a integer, b bigint);
INSERT INTO narrow SELECT i, i * 7919 % 1000003, i * 3 FROM generate_series(1, {narrow}::bigint) i;
CREATE INDEX ON narrow (a);
"""


class Work:
    """What is copied, and against what."""

    def __init__(self, title, fill, ways, floors=(), round_trip=0):
        self.title, self.fill, self.ways, self.floors, self.round_trip = title, fill, ways, floors, round_trip


def fill_database(servers, name, scale):
    # pgbench's tables are half of it.
    run([servers.clients / "pgbench", "--quiet", "--initialize", "--scale", max(1, round(30 * scale)), servers.source.uri(name)])
    script(servers, name, DATABASE.format(wide=round(1_500_000 * scale), narrow=round(4_000_000 * scale)))


def fill_table(servers, name, scale):
    script(servers, name, "CREATE TABLE events (id bigint, kind integer, at timestamptz, amount numeric(10,2), note text);"
           "INSERT INTO events SELECT i, i % 97, '2024-01-01'::timestamptz + i * interval '1 second', (i % 100000) / 100.0, 'event ' || i "
           f"FROM generate_series(1, {round(10_000_000 * scale)}::bigint) i")


def fill_small(servers, name, scale):
    script(servers, name, "".join(
        f"CREATE TABLE t{n} (id integer PRIMARY KEY, name text, made timestamptz DEFAULT now()); CREATE INDEX ON t{n} (name);"
        f"INSERT INTO t{n} SELECT i, 'row ' || i FROM generate_series(1, 100) i;" for n in range(max(1, round(200 * scale)))))


def script(servers, name, statements):
    subprocess.run([str(word) for word in servers.source.command(name)] + ["-f", "-"], input=statements, text=True, check=True, stdout=subprocess.DEVNULL)


WORKS = {
    "database": Work("a mixed database", fill_database, [peers.DumpRestore, peers.DumpPsql, peers.Pipe, peers.Pgcopydb, peers.Subscription], [peers.ReadFloor, peers.WriteFloor]),
    "rows": Work("one table without index", fill_table, [peers.PlainPipe], [peers.ReadFloor, peers.WriteFloor]),
    "small": Work("200 small tables", fill_small, [peers.DumpRestore, peers.Pipe, peers.Pgcopydb], round_trip=20),
}


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(servers, work, name, options):
    say(f"filling the source: {work.title}, scale {options.scale}")
    servers.source.psql("postgres", f"CREATE DATABASE {name}")
    work.fill(servers, name, options.scale)
    servers.source.psql(name, "VACUUM (ANALYZE)")
    size = int(servers.source.psql(name, "SELECT pg_database_size(current_database())"))
    with contextlib.ExitStack() as proxies:
        round_trip = options.round_trip if options.round_trip is not None else work.round_trip
        if round_trip:
            distant = {server: proxies.enter_context(Distant(server.port, round_trip / 1000)) for server in (servers.source, servers.target)}
            link = lambda server, database: f"host=127.0.0.1 port={distant[server].port} user=postgres dbname={database}"
        else:
            link = lambda server, database: f"host={servers.home} port={server.port} user=postgres dbname={database}"
        ways = [way(options, servers, link) for way in [peers.Pgstream, *chosen(work, options)]]
        say("warming up: the first copy to a new server pays for the files of its log")
        one(servers, ways[0], name, -1)
        rounds = []
        for number in range(options.rounds):
            turn = number % len(ways)
            rounds.append({type(way).__name__: one(servers, way, name, number) for way in ways[turn:] + ways[:turn]})
    figures = {"work": name, "title": work.title, "bytes": size, "round_trip_ms": round_trip, "jobs": options.jobs, "rounds": options.rounds, "scale": options.scale, "ways": {}}
    for way in ways:
        key = type(way).__name__
        seconds = [each[key].seconds for each in rounds]
        figures["ways"][key] = {"title": way.title, "seconds": seconds, "median_seconds": statistics.median(seconds)}
        if key == "Pgstream":
            own = statistics.median(each[key].processor for each in rounds)
            figures["ways"][key] |= {"processor_seconds": own, "processor_seconds_per_gb": own / (size / 1e9), "peak_memory_kb": max(each[key].memory for each in rounds)}
        else:
            figures["ways"][key]["ratio"] = statistics.median(each["Pgstream"].seconds / each[key].seconds for each in rounds)
    return figures


def chosen(work, options):
    """The ways to compare that were asked for and can be run here."""
    for way in [*work.ways, *(work.floors if options.floor else ())]:
        if options.peers and way.__name__.lower() not in options.peers and way not in work.floors:
            continue
        reason = getattr(way, "missing", lambda: None)()
        if reason:
            say(f"left out: {reason}")
        else:
            yield way


def one(servers, way, name, number):
    """One run into a fresh database, with nothing left to write from the run before."""
    target = f"{name}_{type(way).__name__.lower()}"
    servers.target.psql("postgres", f"DROP DATABASE IF EXISTS {target}", f"CREATE DATABASE {target}", "CHECKPOINT")
    servers.source.psql("postgres", "CHECKPOINT")
    used = way.copy(name, target)
    if isinstance(way, peers.Pgstream):
        compare(servers, name, target)
    servers.target.psql("postgres", f"DROP DATABASE {target}")
    say(f"round {number + 1}: {way.title} {used.seconds:.2f} s; load {load():.1f}")
    return used


def compare(servers, source, target):
    def compare_table(table):
        total = f"SELECT count(*), sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint) FROM {table} t"
        if servers.source.psql(source, total) != servers.target.psql(target, total):
            raise Failure(f"table {table} differs between source and target")

    peers.each_table(servers, servers.source.uri(source), 2, compare_table)


def report(figures):
    apart = f", {figures['round_trip_ms']} ms of round-trip time to each server" if figures["round_trip_ms"] else ""
    print(f"{figures['title']}: {figures['bytes'] / 1e9:.2f} GB, {figures['jobs']} jobs, medians of {figures['rounds']} rounds{apart}")
    for way in figures["ways"].values():
        if "ratio" in way:
            print(f"  {way['title']:44} {way['median_seconds']:8.2f} s   ratio {way['ratio']:.2f}")
        else:
            print(f"  {way['title']:44} {way['median_seconds']:8.2f} s   own processor time {way['processor_seconds']:.2f} s "
                  f"({way['processor_seconds_per_gb']:.2f} s per GB), peak memory {way['peak_memory_kb'] / 1000:.0f} MB")


def main():
    parser = argparse.ArgumentParser(prog="tests/bench.sh copy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--only", metavar="WORK,…", help=f"of {', '.join(WORKS)}; all if left out")
    parser.add_argument("--peers", metavar="PEER,…", help="of dumprestore, dumppsql, pipe, pgcopydb, subscription; all if left out")
    parser.add_argument("--floor", action="store_true", help="also read alone and write alone")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 1.5 GB, 10 million rows, 200 tables")
    parser.add_argument("--jobs", type=int, default=2, help="for all programs (2)")
    parser.add_argument("--round-trip", type=float, metavar="MS", help="milliseconds to each server and back, by a proxy; 20 for the small tables and none for the rest if left out")
    add_common_options(parser)
    options = parser.parse_args()
    options.peers = options.peers.split(",") if options.peers else None
    only = options.only.split(",") if options.only else list(WORKS)
    if unknown := [name for name in only if name not in WORKS]:
        parser.error(f"no work is named {unknown[0]}")
    options.pgstream = program(options.pgstream)
    figures = []
    with Servers(options.source, options.target, SETTINGS) as servers:
        print(f"PostgreSQL {options.source} to {options.target}, {os.cpu_count()} processors", flush=True)
        for name in only:
            figures.append(measure(servers, WORKS[name], name, options))
            report(figures[-1])
            servers.source.psql("postgres", f"DROP DATABASE {name}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    try:
        main()
    except (Failure, subprocess.CalledProcessError) as failure:
        sys.exit(f"bench: {failure}")
