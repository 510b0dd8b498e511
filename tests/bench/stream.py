#!/usr/bin/env python3
"""Measures the stream: backlogs drained by pgstream and by a native subscription in turn, and the delay under a steady rate.

Starts its own two servers and removes them at the end. Both consumers have a slot from before the first backlog; each backlog is made while
both are down, then drained by one and by the other, in alternating order, into a database each. A drain is timed from the command that
starts it until the backlog's last commit is visible on the target. Before a backlog is made, both have taken all that was there, and their
slots begin where it begins: a walsender reads again what lies between the slot's restart position and what it sends.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from proxy import Distant
from servers import Failure, Servers, discarder, load, peak_memory, processor_time, program, run, wait_for

SETTINGS = {
    "wal_level": "logical",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    # It begins at a moment of its own, and would be part of one measurement and not of the other.
    "autovacuum": "off",
    # A subscription that was disabled and enabled again would wait this long before it starts.
    "wal_retrieve_retry_interval": "10ms",
}

SCHEMA = [
    "CREATE TABLE marker (id bigint PRIMARY KEY)",
    "CREATE TABLE bulk (id bigint PRIMARY KEY, kind integer, note text, made timestamptz)",
    "CREATE TABLE single (id bigint PRIMARY KEY, note text)",
    "CREATE SEQUENCE singles",
    "CREATE TABLE changed (id integer PRIMARY KEY, price numeric(12,2), note text, made timestamptz)",
    "CREATE TABLE probe (id integer PRIMARY KEY, at timestamptz)",
    "ALTER TABLE pgbench_history REPLICA IDENTITY FULL",
]


# Seconds until a drain has failed.
LONGEST = 900


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Backlog:
    """What is left behind for both to drain."""

    def __init__(self, name, title, make, before=None):
        self.name, self.title, self.make, self.before = name, title, make, before


def backlogs(scale):
    def count(number):
        return max(1, int(number * scale))

    def statement(sql):
        return lambda bench: bench.servers.source.psql("bench", sql)

    fill = (
        f"INSERT INTO changed SELECT i, i / 7.0, md5(i::text), '2024-01-01'::timestamptz + i * interval '1 second' "
        f"FROM generate_series(1, {count(500_000)}) i"
    )
    return [
        Backlog("tpcb", f"{count(100_000):,} TPC-B transactions", lambda b: b.pgbench("-t", count(100_000) // 4)),
        Backlog(
            "bulk",
            f"{count(2_000_000):,} rows inserted by one transaction",
            statement(
                f"INSERT INTO bulk SELECT i, i % 100, md5(i::text), '2024-01-01'::timestamptz + i * interval '1 second' "
                f"FROM generate_series(1, {count(2_000_000)}) i"
            ),
            before="TRUNCATE bulk",
        ),
        Backlog(
            "single",
            f"{count(200_000):,} transactions of one insert",
            lambda b: b.pgbench("-t", count(200_000) // 4, script="INSERT INTO single VALUES (nextval('singles'), md5(random()::text));"),
            before="TRUNCATE single",
        ),
        Backlog(
            "update",
            f"{count(500_000):,} rows updated by one statement",
            statement("UPDATE changed SET price = price + 1, note = md5(note)"),
            before=f"TRUNCATE changed; {fill}",
        ),
        Backlog("delete", f"{count(500_000):,} rows deleted by one statement", statement("DELETE FROM changed")),
    ]


def far_transactions(scale):
    return 4 * max(1, int(20_000 * scale) // 4)


class Native:
    """PostgreSQL's own subscription."""

    name, title = "native", "subscription"

    def __init__(self, bench):
        self.bench, self.target, self.ports = bench, bench.servers.target, (None, None)

    def set_up(self):
        target = self.target
        target.psql("postgres", "CREATE DATABASE native")
        run([self.bench.servers.clients / "pgbench", "--initialize", "--init-steps", "tp", "--quiet", target.uri("native")])
        target.psql("native", *SCHEMA)
        options = f" WITH ({self.bench.options.subscription})" if self.bench.options.subscription else ""
        target.psql("native", f"CREATE SUBSCRIPTION bench CONNECTION '{self.bench.servers.source.uri('bench')}' PUBLICATION bench{options}")
        ready = "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"
        wait_for(lambda: target.psql("native", ready) == "t", "the initial copy of the subscription", step=0.5)
        self.stop()

    def start(self):
        uri = self.bench.servers.source.uri("bench", self.ports[0])
        self.target.psql("native", f"ALTER SUBSCRIPTION bench CONNECTION '{uri}'", "ALTER SUBSCRIPTION bench ENABLE")

    def pids(self):
        """Walsender, then what applies."""
        sender = self.bench.servers.source.psql("bench", "SELECT pid FROM pg_stat_replication WHERE application_name = 'bench'")
        worker = self.target.psql("native", "SELECT pid FROM pg_stat_subscription WHERE subname = 'bench' AND relid IS NULL")
        return sender.split(), worker.split(), []

    def stop(self):
        self.target.psql("native", "ALTER SUBSCRIPTION bench DISABLE")
        self.bench.wait_until_idle()


class Pgstream:
    """`pgstream migrate`, which goes on from its checkpoint."""

    name, title = "pgstream", "pgstream"

    def __init__(self, bench):
        self.bench, self.target, self.process, self.ports = bench, bench.servers.target, None, (None, None)

    def set_up(self):
        self.target.psql("postgres", "CREATE DATABASE pgstream")
        self.start()
        state = "SELECT to_regclass('pgstream.checkpoint') IS NOT NULL AND to_regclass('marker') IS NOT NULL"
        wait_for(lambda: self.target.psql("pgstream", state) == "t", "the copy by pgstream", step=0.5)
        self.bench.mark()
        self.bench.wait_for_marker(self)
        self.stop()

    def start(self):
        servers = self.bench.servers
        command = [self.bench.program, "migrate", "--quiet", "--method", "replication", "--no-publications"]
        source, target = self.ports
        command += ["--source", servers.source.uri("bench", source), "--target", self.target.uri("pgstream", target)]
        self.log = open(servers.home / "pgstream.log", "a+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def failure(self):
        """What it said, if it has ended."""
        if self.process.poll() is None:
            return None
        self.log.seek(0)
        return f"pgstream ended with exit code {self.process.returncode}: {self.log.read().strip()[-2000:]}"

    def pids(self):
        named = "application_name = 'pgstream'"
        sender = self.bench.servers.source.psql("bench", f"SELECT pid FROM pg_stat_replication WHERE {named}")
        sessions = self.target.psql("pgstream", f"SELECT pid FROM pg_stat_activity WHERE {named}")
        return sender.split(), sessions.split(), [self.process.pid]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.bench.wait_until_idle()


class Bench:
    def __init__(self, options, servers):
        self.options, self.servers, self.marker = options, servers, 0
        self.program = options.pgstream
        self.discarder = options.floor and discarder()
        self.native, self.pgstream = Native(self), Pgstream(self)

    def set_up(self):
        source = self.servers.source
        say(f"filling the source; PostgreSQL {source.major} to {self.servers.target.major}")
        source.psql("postgres", "CREATE DATABASE bench")
        scale = str(max(1, round(10 * self.options.scale)))
        run([self.servers.clients / "pgbench", "--quiet", "--initialize", "--scale", scale, source.uri("bench")])
        source.psql("bench", *SCHEMA, "CREATE PUBLICATION bench FOR ALL TABLES")
        for consumer in (self.native, self.pgstream):
            consumer.set_up()

    def pgbench(self, *arguments, script=None, asynchronous=True):
        """Runs pgbench with four clients on the source; how fast its commits are does not matter to what is left behind."""
        command = [self.servers.clients / "pgbench", "-n", "-M", "prepared", "-c", "4", "-j", "2", *arguments]
        if script:
            path = self.servers.home / "script.sql"
            path.write_text(script)
            command += ["-f", path]
        environment = os.environ | ({"PGOPTIONS": "-c synchronous_commit=off"} if asynchronous else {})
        run([*command, self.servers.source.uri("bench")], env=environment)

    def mark(self):
        """A last commit, by which one sees that all before it has arrived."""
        self.marker += 1
        self.marked_after = self.servers.source.psql("bench", "SELECT pg_current_wal_insert_lsn()")
        self.servers.source.psql("bench", f"INSERT INTO marker VALUES ({self.marker})")

    def wait_for_marker(self, consumer):
        # COMMIT gives up the lock on the table, for which somebody may wait.
        loop = f"LOOP EXIT WHEN EXISTS (SELECT FROM marker WHERE id = {self.marker}); COMMIT; PERFORM pg_sleep(0.01); END LOOP"
        waiting = subprocess.Popen(self.servers.target.command(consumer.name, f"DO $$ BEGIN {loop}; END $$"), stderr=subprocess.PIPE)
        for _ in range(LONGEST):
            try:
                if waiting.wait(1) != 0:
                    raise Failure(waiting.stderr.read().decode())
                return
            except subprocess.TimeoutExpired:
                if consumer is self.pgstream and (failure := consumer.failure()):
                    waiting.kill()
                    raise Failure(failure)
        waiting.kill()
        raise Failure(f"{consumer.title} did not drain its backlog within {LONGEST} s")

    def wait_until_idle(self):
        """Until nobody streams, and the slots are free again."""
        active = "SELECT count(*) FROM pg_replication_slots WHERE active"
        wait_for(lambda: self.servers.source.psql("bench", active) == "0", "the end of a stream", step=0.1)

    def take_all(self):
        """Both take what is there, until their slots need nothing of it any more."""
        source = self.servers.source
        self.mark()
        for consumer in (self.native, self.pgstream):
            consumer.start()
            self.wait_for_marker(consumer)
            position = source.psql("bench", "SELECT pg_current_wal_insert_lsn()")

            def is_past():
                # A slot moves by a record that each checkpoint writes.
                source.psql("bench", "CHECKPOINT")
                return source.psql("bench", f"SELECT bool_or(active AND restart_lsn >= '{position}') FROM pg_replication_slots") == "t"

            wait_for(is_past, f"the slot of {consumer.title}", step=0.3)
            consumer.stop()

    def drain(self, consumer):
        """Drains what is there: seconds, and what each process used."""
        servers = self.servers
        servers.target.psql("postgres", "CHECKPOINT")
        before = servers.source.processor_time() + servers.target.processor_time()
        load_before, begun = load(), time.monotonic()
        consumer.start()
        self.wait_for_marker(consumer)
        seconds = time.monotonic() - begun
        senders, sessions, programs = consumer.pids()
        figures = {
            "seconds": round(seconds, 3),
            "walsender_cpu": sum(map(processor_time, senders)),
            "apply_cpu": sum(map(processor_time, sessions)),
            "program_cpu": sum(map(processor_time, programs)),
            "program_peak_kb": sum(map(peak_memory, programs)),
            "load": load_before,
        }
        servers_cpu = servers.source.processor_time() + servers.target.processor_time() - before
        figures["all_cpu"] = round(servers_cpu + figures["program_cpu"], 3)
        consumer.stop()
        return figures

    def discard(self):
        """Receives the backlog from a slot of its own, by the receiving half of pgstream, which looks at nothing but the last commit."""
        begun = time.monotonic()
        run([self.discarder, self.servers.source.uri("bench"), "discard", "bench", self.marked_after])
        seconds = time.monotonic() - begun
        self.wait_until_idle()
        return seconds

    def measure(self, round_number, backlog):
        source = self.servers.source
        if backlog.before:
            source.psql("bench", *backlog.before.split("; "))
        self.take_all()
        if self.options.floor:
            source.psql("bench", "SELECT pg_create_logical_replication_slot('discard', 'pgoutput')")
        begun = time.monotonic()
        backlog.make(self)
        figures = {"made": {"seconds": round(time.monotonic() - begun, 3)}}
        self.mark()
        source.psql("postgres", "CHECKPOINT")
        if self.options.floor:
            figures["discard"] = {"seconds": round(self.discard(), 3)}
            source.psql("bench", "SELECT pg_drop_replication_slot('discard')")
        order = [self.native, self.pgstream] if round_number % 2 else [self.pgstream, self.native]
        for consumer in order:
            figures[consumer.name] = self.drain(consumer)
        native, ours = figures["native"], figures["pgstream"]
        say(
            f"round {round_number}, {backlog.title}: subscription {native['seconds']:.2f} s, CPU {native['all_cpu']:.2f} s; "
            f"pgstream {ours['seconds']:.2f} s, CPU {ours['all_cpu']:.2f} s; load {load():.1f}"
        )
        return figures

    def far(self, milliseconds):
        """Seconds of both for a backlog of small transactions that a round trip of so long is between, by where pgstream runs. What applies a
        subscription is a part of the target, and never far from it."""
        source, target = self.servers.source, self.servers.target
        figures = {}
        for place, from_source, from_target in (("beside the target", True, False), ("beside the source", False, True), ("far from both", True, True)):
            self.pgbench("-t", far_transactions(self.options.scale) // 4)
            self.mark()
            source.psql("postgres", "CHECKPOINT")
            with Distant(source.port, milliseconds / 1000) as far_source, Distant(target.port, milliseconds / 1000) as far_target:
                self.native.ports = (far_source.port, None)
                self.pgstream.ports = (far_source.port if from_source else None, far_target.port if from_target else None)
                figures[place] = {consumer.name: self.drain(consumer)["seconds"] for consumer in (self.native, self.pgstream)}
            self.native.ports = self.pgstream.ports = (None, None)
            say(f"{milliseconds} ms, pgstream {place}: {figures[place]}")
        return figures

    def compare(self):
        """A fast drain that isn't one would be worth nothing."""
        for table in ("pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history", "bulk", "single", "changed"):
            checksum = f"SELECT count(*), sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint) FROM {table} t"
            expected = self.servers.source.psql("bench", checksum)
            for consumer in (self.native, self.pgstream):
                if self.servers.target.psql(consumer.name, checksum) != expected:
                    raise Failure(f'table "{table}" differs between the source and the target of {consumer.title}')

    def delay(self, consumer, rate):
        """Milliseconds from a commit on the source until it is visible on the target, under `rate` TPC-B transactions a second."""
        seconds, each = self.options.delay_seconds, 0.02
        probes = int((seconds - 4) / each)
        self.servers.source.psql("bench", "TRUNCATE probe")
        self.mark()
        consumer.start()
        self.wait_for_marker(consumer)
        writing = subprocess.Popen(
            [self.servers.clients / "pgbench", "-n", "-M", "prepared", "-c", "8", "-j", "2", "-R", str(rate), "-T", str(seconds), self.servers.source.uri("bench")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        time.sleep(2)
        look = f"""DO $$ DECLARE had int := 0; top int; BEGIN
            LOOP
              SELECT coalesce(max(id), 0) INTO top FROM probe;
              IF top > had THEN INSERT INTO seen SELECT i, clock_timestamp() FROM generate_series(had + 1, top) i; had := top; END IF;
              EXIT WHEN had >= {probes};
              COMMIT;
              PERFORM pg_sleep(0.001);
            END LOOP; END $$"""
        looking = subprocess.Popen(
            self.servers.target.command(
                consumer.name, "SET synchronous_commit = off", "CREATE TEMP TABLE seen (id int, at timestamptz)", look,
                "SELECT round(1000 * extract(epoch FROM s.at - p.at), 3) FROM seen s JOIN probe p USING (id)",
            ),
            stdout=subprocess.PIPE, text=True,
        )
        self.servers.source.psql(
            "bench",
            f"DO $$ BEGIN FOR i IN 1..{probes} LOOP INSERT INTO probe VALUES (i, clock_timestamp()); COMMIT; PERFORM pg_sleep({each}); END LOOP; END $$",
        )
        delays = sorted(float(line) for line in looking.communicate(timeout=120)[0].split())
        reached = [line for line in writing.communicate()[0].splitlines() if line.startswith("tps")]
        consumer.stop()
        if len(delays) != probes:
            raise Failure(f"{len(delays)} of {probes} probes were seen")
        return {
            "median_ms": round(statistics.median(delays), 2),
            "p99_ms": round(delays[int(len(delays) * 0.99)], 2),
            "transactions_per_second": float(reached[0].split()[2]),
        }


def summary(rounds):
    """Medians over the rounds, and the ratio of pgstream to native in each round."""

    def median(name, key):
        return round(statistics.median(figures[name][key] for figures in rounds), 3)

    keys = ("seconds", "walsender_cpu", "apply_cpu", "program_cpu", "all_cpu")
    result = {name: {key: median(name, key) for key in keys} for name in ("native", "pgstream")}
    result["pgstream"]["program_peak_kb"] = max(figures["pgstream"]["program_peak_kb"] for figures in rounds)
    for ratio, key in (("ratio", "seconds"), ("cpu_ratio", "all_cpu")):
        result[ratio] = round(statistics.median(f["pgstream"][key] / f["native"][key] for f in rounds), 3)
    result["made_seconds"] = median("made", "seconds")
    if "discard" in rounds[0]:
        result["discard_seconds"] = median("discard", "seconds")
    result["load"] = round(statistics.median(f[name]["load"] for f in rounds for name in ("native", "pgstream")), 1)
    result["rounds"] = rounds
    return result


def show(report):
    print(
        f"PostgreSQL {report['source']} to {report['target']}, {report['processors']} processors, medians of {report['rounds']} rounds; "
        "seconds, and in brackets the CPU seconds of walsender + apply (+ pgstream); ratios are medians of each round's"
    )
    print(f"{'backlog':44} {'subscription':>24} {'pgstream':>30} {'time':>6} {'CPU':>6} {'memory':>7} {'load':>5}")
    for name, figures in report["backlogs"].items():
        native, ours = figures["native"], figures["pgstream"]
        theirs = f"{native['seconds']:.2f} ({native['walsender_cpu']:.1f} + {native['apply_cpu']:.1f})"
        own = f"{ours['seconds']:.2f} ({ours['walsender_cpu']:.1f} + {ours['apply_cpu']:.1f} + {ours['program_cpu']:.1f})"
        floor = f"   the source's own sessions took {figures['made_seconds']:.2f} s"
        if "discard_seconds" in figures:
            floor += f", received and discarded in {figures['discard_seconds']:.2f} s"
        print(
            f"{figures['title']:44} {theirs:>24} {own:>30} {figures['ratio']:6.2f} {figures['cpu_ratio']:6.2f} "
            f"{ours['program_peak_kb'] / 1024:4.0f} MB {figures['load']:5.1f}{floor}"
        )
    for place, figures in report["far"].items():
        native, ours = figures["native"], figures["pgstream"]
        print(
            f"{report['round_trip']} ms there and back, pgstream {place}, {report['far_transactions']:,} TPC-B transactions: "
            f"subscription {native:.2f} s, pgstream {ours:.2f} s ({ours / native:.2f})"
        )
    for rate, figures in report["delays"].items():
        native, ours = figures["native"], figures["pgstream"]
        print(
            f"delay at {rate} transactions a second: subscription median {native['median_ms']} ms, p99 {native['p99_ms']} ms "
            f"(reached {native['transactions_per_second']:.0f}/s); pgstream median {ours['median_ms']} ms, p99 {ours['p99_ms']} ms "
            f"(reached {ours['transactions_per_second']:.0f}/s)"
        )


def arguments():
    parser = argparse.ArgumentParser(prog="tests/bench.sh stream", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=3, help="how often each backlog is made and drained by both (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the backlogs; 1 is 100,000 TPC-B transactions, 2 M rows and so on")
    parser.add_argument("--only", metavar="NAME,…", help="backlogs to measure: tpcb, bulk, single, update, delete")
    parser.add_argument("--source", default="15", metavar="MAJOR", help="major of the source (15)")
    parser.add_argument("--target", default="15", metavar="MAJOR", help="major of the target (15)")
    parser.add_argument("--subscription", default="", metavar="OPTIONS", help="options of the subscription, such as \"binary = on, streaming = on\"; its defaults if left out")
    parser.add_argument("--floor", action="store_true", help="also receive each backlog by pgstream and discard it")
    parser.add_argument("--round-trip", type=float, metavar="MS", help="also drain small transactions with servers that are so far away")
    parser.add_argument("--delay", default="1000,2000", metavar="RATE,…", help="rates to measure the delay at; empty for none (1000,2000)")
    parser.add_argument("--delay-seconds", type=int, default=20, help="how long each rate is kept up (20)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there; - is stdout, in place of the text")
    parser.add_argument("--pgstream", metavar="PATH", help="the program to measure; if left out, a release build is made")
    return parser.parse_args()


def main():
    options = arguments()
    options.pgstream = program(options.pgstream)
    wanted = backlogs(options.scale)
    if options.only:
        names = options.only.split(",")
        wanted = [backlog for backlog in wanted if backlog.name in names]
    with Servers(options.source, options.target, SETTINGS) as servers:
        bench = Bench(options, servers)
        bench.set_up()
        measured = {backlog.name: [] for backlog in wanted}
        for number in range(1, options.rounds + 1):
            for backlog in wanted:
                measured[backlog.name].append(bench.measure(number, backlog))
        far = bench.far(options.round_trip) if options.round_trip else {}
        bench.compare()
        delays = {}
        for rate in filter(None, options.delay.split(",")):
            delays[rate] = {consumer.name: bench.delay(consumer, int(rate)) for consumer in (bench.native, bench.pgstream)}
    report = {
        "source": options.source, "target": options.target, "subscription": options.subscription, "scale": options.scale,
        "rounds": options.rounds, "processors": os.cpu_count(),
        "backlogs": {backlog.name: {"title": backlog.title} | summary(measured[backlog.name]) for backlog in wanted},
        "round_trip": options.round_trip, "far_transactions": far_transactions(options.scale), "far": far,
        "delays": delays,
    }
    if options.json:
        with sys.stdout if options.json == "-" else open(options.json, "w") as file:
            json.dump(report, file, indent=2)
            file.write("\n")
    if options.json != "-":
        show(report)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench: {failure}")
