"""Follows a database for hours while everything is killed at random, compares both sides every few minutes, and draws how it went."""

import argparse
import collections
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

from servers import Failure, Servers, program, run

# The application's tables; pgbench_history has no key.
TABLES = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"]

# How often it is asked whether something has happened that has to, 0.2 seconds apart: a stream that is not at a position by then hangs. Counted in
# tries, since a machine that sleeps, or is stopped for other work, takes its time away from all alike.
TRIES = 900

# Sum and number of a table's rows. Rows are compared whole; their order doesn't count.
SUM = "SELECT count(*), coalesce(sum(('x' || substr(md5(t::text), 1, 12))::bit(48)::bigint), 0) FROM {} t"


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Soak:
    def __init__(self, options, servers):
        self.options, self.servers = options, servers
        self.source, self.target = servers.source, servers.target
        self.random = random.Random(options.seed)
        self.over = threading.Event()
        self.writes = threading.Event()
        self.faults = collections.Counter()
        self.samples, self.marks = [], []
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.process = self.application = None
        self.checks = self.rows = self.starts = 0
        self.wrong = []

    # What runs all the time: each in a thread of its own.

    def follow(self):
        """Starts pgstream again whenever it ends, as an operator or a supervisor does."""
        with open(self.options.log, "a") as log:
            while not self.over.is_set():
                with self.lock:
                    self.process = subprocess.Popen(self.pgstream("migrate", "--method", "replication", "--replica-identity", "full"), stdout=log, stderr=log)
                self.starts += 1
                code = self.process.wait()
                if code == 0 and not self.over.is_set():
                    self.wrong.append("pgstream ended unasked")
                self.over.wait(1)

    def write(self):
        """Writes at a steady rate, with pauses for the comparisons, whatever happens to the server."""
        while not self.over.is_set():
            if not self.writes.wait(1):
                continue
            command = [self.servers.clients / "pgbench", "--no-vacuum", "--client", "2", "--rate", self.options.rate, "--time", "600", self.source.uri("app")]
            with self.lock:
                if not self.writes.is_set():
                    continue
                self.application = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.application.wait()
            self.over.wait(1)

    def change_definitions(self):
        """Tables that aren't migrated come, change and go."""
        number = 0
        while not self.over.wait(self.random.uniform(1, 10)):
            number += 1
            table = f"scratch.t{number % 5}"
            try:
                self.source.psql("app", f"DROP TABLE IF EXISTS {table}", f"CREATE TABLE {table} (id integer PRIMARY KEY)", f"INSERT INTO {table} SELECT generate_series(1, 500)",
                                 f"ALTER TABLE {table} ADD v text DEFAULT 'x'", f"UPDATE {table} SET v = 'y'", f"CREATE INDEX ON {table} (v)", f"TRUNCATE {table}")
            except Failure:
                pass

    def sample(self):
        """Measures every few seconds; a server that is down gives no figures."""
        while not self.over.wait(self.options.interval):
            try:
                # The target first: what it holds then, the source has written.
                applied = self.target.psql("app", "SELECT applied - '0/0' FROM pgstream.checkpoint")
                written, retained = self.source.psql("app", "SELECT pg_current_wal_lsn() - '0/0', pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots LIMIT 1").split("|")
                self.samples.append((time.monotonic() - self.began, int(written) - int(applied), self.memory(), int(retained)))
            except (Failure, ValueError):
                continue

    def memory(self):
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            return int(status.split("VmRSS:")[1].split()[0]) * 1024
        except (OSError, IndexError, AttributeError):
            return 0

    # What fails.

    def break_something(self):
        kind = self.random.choice(["pgstream killed", "pgstream killed", "pgstream stopped", "sessions ended", "source crashed", "target crashed"])
        self.faults[kind] += 1
        self.marks.append((time.monotonic() - self.began, kind))
        if kind.startswith("pgstream"):
            self.signal(signal.SIGKILL if kind.endswith("killed") else signal.SIGTERM)
        elif kind == "sessions ended":
            for server in (self.source, self.target):
                try:
                    server.psql("app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgstream'")
                except Failure:
                    pass
        else:
            server = self.source if kind.startswith("source") else self.target
            server.stop()
            self.over.wait(self.random.uniform(0, 3))
            start = [server.programs / "pg_ctl", "-D", server.data, "-l", self.servers.home / f"{server.name}.log", "-w", "start"]
            self.servers.as_owner(start)

    def signal(self, number):
        with self.lock:
            if self.process and self.process.poll() is None:
                self.process.send_signal(number)

    def pgstream(self, command, *arguments):
        return [self.options.pgstream, command, "--source", self.source.uri("app"), "--target", self.target.uri("app"),
                *(["--exclude-schema", "scratch"] if command == "migrate" else []), *arguments]

    # What is compared.

    def compare(self):
        """Has the application pause, waits until the target is where the source is, and compares all rows."""
        with self.lock:
            self.writes.clear()
            if self.application and self.application.poll() is None:
                self.application.terminate()
                self.application.wait()
        end = self.patiently(lambda: self.source.psql("app", "SELECT pg_logical_emit_message(true, 'soak', 'end')"), "the source")
        there = f"SELECT applied >= '{end}' FROM pgstream.checkpoint"
        self.patiently(lambda: self.target.psql("app", there) == "t", f"the target at {end}")
        self.compare_rows()

    def compare_rows(self):
        for table in TABLES:
            sums = [server.psql("app", SUM.format(table)) for server in (self.source, self.target)]
            self.rows += int(sums[0].split("|")[0])
            if sums[0] != sums[1]:
                self.wrong.append(f"{table} differs: {sums[0]} on the source, {sums[1]} on the target")
        self.checks += 1

    def patiently(self, question, what):
        for _ in range(TRIES):
            try:
                if answer := question():
                    return answer
            except Failure:
                pass
            time.sleep(0.2)
        raise Failure(f"hung: {what} was not there after {TRIES} tries")

    def go(self):
        self.source.psql("postgres", "CREATE DATABASE app")
        self.target.psql("postgres", "CREATE DATABASE app")
        run([self.servers.clients / "pgbench", "--quiet", "--initialize", "--scale", self.options.scale, self.source.uri("app")])
        self.source.psql("app", "CREATE SCHEMA scratch")
        threads = [threading.Thread(target=work, daemon=True) for work in (self.follow, self.write, self.change_definitions, self.sample)]
        for thread in threads:
            thread.start()
        self.writes.set()
        self.patiently(lambda: self.target.psql("app", "SELECT phase FROM pgstream.migration") in ("catch-up", "syncing"), "the copy")
        end = self.began + self.options.hours * 3600
        next_check = time.monotonic() + self.options.check * 60
        while time.monotonic() < end and not self.wrong:
            time.sleep(self.random.uniform(*self.options.pause))
            self.break_something()
            if time.monotonic() >= next_check:
                self.compare()
                self.writes.set()
                say(f"{self.checks} comparisons, {self.rows} rows, {sum(self.faults.values())} faults, {self.starts} starts of pgstream")
                next_check = time.monotonic() + self.options.check * 60
        # The application stays still. pgstream goes on until the cutover; the rest ends.
        self.compare()
        self.over.set()
        for thread in threads[1:3]:
            thread.join(60)
        self.source.psql("app", "DROP SCHEMA scratch CASCADE")
        run(self.pgstream("cutover"))
        self.compare_rows()

    def finish(self):
        self.over.set()
        self.signal(signal.SIGKILL)
        if self.application and self.application.poll() is None:
            self.application.kill()


def draw(soak, file):
    """Three curves over the same time, with a line for each fault."""
    width, height, left, gap = 1100, 200, 90, 40
    span = max([at for at, *_ in soak.samples] + [1])
    curves = [("lag of the target, MB", 1, "#1f6fb4"), ("memory of pgstream, MB", 2, "#2a8a4a"), ("log that the slot keeps, MB", 3, "#b4531f")]
    colors = {"pgstream killed": "#c33", "pgstream stopped": "#e90", "sessions ended": "#999", "source crashed": "#55c", "target crashed": "#a3a"}
    x = lambda at: left + at / span * (width - left - 20)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{3 * (height + gap) + 60}" font-family="sans-serif" font-size="12">',
             '<rect width="100%" height="100%" fill="white"/>']
    for number, (title, index, color) in enumerate(curves):
        top = 30 + number * (height + gap)
        most = max([sample[index] for sample in soak.samples] + [1]) / 1e6
        y = lambda value: top + height - value / 1e6 / most * height
        parts.append(f'<text x="{left}" y="{top - 8}">{title}</text><rect x="{left}" y="{top}" width="{width - left - 20}" height="{height}" fill="none" stroke="#ccc"/>')
        for share in (0, 0.5, 1):
            parts.append(f'<text x="{left - 8}" y="{y(share * most * 1e6) + 4}" text-anchor="end">{share * most:.1f}</text>')
        for at, kind in soak.marks:
            parts.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{top + height}" stroke="{colors[kind]}" stroke-opacity="0.35"/>')
        points = " ".join(f"{x(sample[0]):.1f},{y(sample[index]):.1f}" for sample in soak.samples)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.2"/>')
    bottom = 30 + 3 * (height + gap)
    for share in range(5):
        parts.append(f'<text x="{x(share / 4 * span):.0f}" y="{bottom - gap + 16}" text-anchor="middle">{share / 4 * span / 60:.0f} min</text>')
    for number, (kind, color) in enumerate(colors.items()):
        parts.append(f'<rect x="{left + number * 170}" y="{bottom}" width="10" height="10" fill="{color}"/><text x="{left + 16 + number * 170}" y="{bottom + 10}">{kind}: {soak.faults[kind]}</text>')
    pathlib.Path(file).write_text("\n".join(parts + ["</svg>"]))


def options():
    parser = argparse.ArgumentParser(prog="tests/soak.sh", description=__doc__)
    parser.add_argument("hours", type=float, help="how long; may be a fraction")
    parser.add_argument("--picture", default="soak.svg", help="where the curves are drawn")
    parser.add_argument("--log", default=os.devnull, help="what pgstream says")
    parser.add_argument("--check", type=float, default=3, metavar="MINUTES", help="between two comparisons (3)")
    parser.add_argument("--pause", type=float, nargs=2, default=(5, 40), metavar="SECONDS", help="the shortest and the longest time between two faults (5 40)")
    parser.add_argument("--rate", type=int, default=50, help="transactions of the application a second (50)")
    parser.add_argument("--scale", type=int, default=1, help="of pgbench's tables (1)")
    parser.add_argument("--interval", type=float, default=2, help="seconds between two measurements (2)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--source", default="15", metavar="MAJOR")
    parser.add_argument("--target", default="17", metavar="MAJOR")
    parser.add_argument("--pgstream", help="the program; if left out, a release build is made")
    return parser.parse_args()


def main():
    chosen = options()
    chosen.pgstream = program(chosen.pgstream)
    settings = {"wal_level": "logical", "max_wal_size": "256MB", "min_wal_size": "64MB", "shared_buffers": "64MB"}
    say(f"seed {chosen.seed}, {chosen.hours} hours, PostgreSQL {chosen.source} to {chosen.target}")
    with Servers(chosen.source, chosen.target, settings) as servers:
        soak = Soak(chosen, servers)
        try:
            soak.go()
        except Failure as failure:
            soak.wrong.append(str(failure))
        finally:
            soak.finish()
            draw(soak, chosen.picture)
    lag = [sample[1] for sample in soak.samples] or [0]
    memory = [sample[2] for sample in soak.samples] or [0]
    retained = [sample[3] for sample in soak.samples] or [0]
    print(f"faults: {dict(soak.faults)}; starts of pgstream: {soak.starts}")
    print(f"comparisons: {soak.checks}, rows compared: {soak.rows}, wrong: {len(soak.wrong)}")
    print(f"most lag {max(lag) / 1e6:.1f} MB, most memory {max(memory) / 1e6:.1f} MB, most log kept {max(retained) / 1e6:.1f} MB; drawn in {chosen.picture}")
    for wrong in soak.wrong:
        print(f"soak: {wrong}", file=sys.stderr)
    sys.exit(1 if soak.wrong else 0)


if __name__ == "__main__":
    main()
