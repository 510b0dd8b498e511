"""The ways to copy a database that are compared: pgstream, and what an operator would type without it.

Each takes the servers, the name of the database on the source, that of an empty one on the target, and the number of jobs, and leaves the target
complete: rows, indexes, constraints.
"""

import concurrent.futures
import os
import shutil
import subprocess
import time

from servers import Failure, run, wait_for


class Used:
    """What one run took: seconds; of pgstream alone also its own processor time and peak memory."""

    def __init__(self, seconds, processor=None, memory=None):
        self.seconds, self.processor, self.memory = seconds, processor, memory


def client(servers, name):
    """A client of the target's own major, as an operator would take: an older server may not know what newer ones write."""
    own = servers.target.programs / name
    return own if own.exists() else servers.clients / name


def piped(first, second):
    """Runs `first | second`, both to the end; whichever failed is reported."""
    writer = subprocess.Popen([str(word) for word in first], stdout=subprocess.PIPE)
    reader = subprocess.Popen([str(word) for word in second], stdin=writer.stdout, stdout=subprocess.DEVNULL)
    writer.stdout.close()
    for process, command in ((reader, second), (writer, first)):
        if process.wait() != 0:
            raise Failure(f"{command[0]} ended with exit code {process.returncode}")


def quiet_psql(servers, uri):
    return [servers.clients / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, "-d", uri]


class Peer:
    """A way to copy; `link` gives the address of a server, which may lead through a proxy."""

    def __init__(self, options, servers, link):
        self.options, self.servers, self.link = options, servers, link

    def copy(self, source, target):
        begun = time.monotonic()
        self.go(self.link(self.servers.source, source), self.link(self.servers.target, target))
        return Used(time.monotonic() - begun)


class Pgstream(Peer):
    title = "pgstream migrate --method copy"

    def copy(self, source, target):
        command = [self.options.pgstream, "migrate", "--quiet", "--method", "copy", "--jobs", str(self.options.jobs)]
        command += ["--source", self.link(self.servers.source, source), "--target", self.link(self.servers.target, target)]
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status != 0:
            raise Failure(f"pgstream ended with status {os.waitstatus_to_exitcode(status)}")
        return Used(time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss)


class DumpRestore(Peer):
    title = "pg_dump -Fd -j, pg_restore -j"

    def copy(self, source, target):
        folder = self.servers.home / "dump"
        jobs = str(self.options.jobs)
        begun = time.monotonic()
        run([client(self.servers, "pg_dump"), "-Fd", "-j", jobs, "-f", folder, "-d", self.link(self.servers.source, source)])
        run([client(self.servers, "pg_restore"), "-j", jobs, "-d", self.link(self.servers.target, target), folder])
        seconds = time.monotonic() - begun
        shutil.rmtree(folder)
        return Used(seconds)


class DumpPsql(Peer):
    title = "pg_dump | psql"

    def go(self, source, target):
        piped([client(self.servers, "pg_dump"), "-d", source], quiet_psql(self.servers, target))


class Pipe(Peer):
    """By hand: the definitions, then one `psql COPY | psql COPY` for each table, so many at once as there are jobs, largest first, then the indexes."""

    title = "pre-data, psql COPY | psql COPY, post-data"

    def go(self, source, target):
        dump, restore = client(self.servers, "pg_dump"), client(self.servers, "pg_restore")
        piped([dump, "--section=pre-data", "-d", source], quiet_psql(self.servers, target))
        copy_tables(self.servers, source, target, self.options.jobs)
        file = self.servers.home / "post-data"
        run([dump, "-Fc", "--section=post-data", "-f", file, "-d", source])
        run([restore, "-j", self.options.jobs, "-d", target, file])
        file.unlink()


class PlainPipe(Peer):
    """One `psql COPY | psql COPY` for each table, and nothing else: of tables without any index."""

    title = "psql COPY | psql COPY"

    def go(self, source, target):
        piped([client(self.servers, "pg_dump"), "-s", "-d", source], quiet_psql(self.servers, target))
        copy_tables(self.servers, source, target, self.options.jobs)


def copy_tables(servers, source, target, jobs):
    def copy(table):
        piped([servers.clients / "psql", "-Xq", "-d", source, "-c", f"COPY {table} TO STDOUT"], quiet_psql(servers, target) + ["-c", f"COPY {table} FROM STDIN"])

    each_table(servers, source, jobs, copy)


def each_table(servers, source, jobs, work):
    """Does `work` for each of the source's tables, so many at once as there are jobs, largest first."""
    largest_first = "SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace " \
        "WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY pg_table_size(c.oid) DESC"
    tables = run([servers.clients / "psql", "-XAtq", "-d", source, "-c", largest_first]).splitlines()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        # A list, so that a failure of any is raised.
        list(pool.map(work, tables))


class Pgcopydb(Peer):
    title = "pgcopydb clone"

    def go(self, source, target):
        folder = self.servers.home / "pgcopydb"
        jobs = str(self.options.jobs)
        path = f"{client(self.servers, 'pg_dump').parent}{os.pathsep}{os.environ['PATH']}"
        run(["pgcopydb", "clone", "--source", source, "--target", target, "--dir", folder, "--table-jobs", jobs, "--index-jobs", jobs], env=os.environ | {"PATH": path})
        shutil.rmtree(folder)

    @staticmethod
    def missing():
        return None if shutil.which("pgcopydb") else "pgcopydb is not installed (Debian has a package)"


class Subscription(Peer):
    """The whole schema first, as the documentation of logical replication says, then the initial synchronization of all tables."""

    title = "pg_dump -s | psql, CREATE SUBSCRIPTION"

    def go(self, source, target):
        piped([client(self.servers, "pg_dump"), "-s", "-d", source], quiet_psql(self.servers, target))
        psql = lambda uri, statement: run([self.servers.clients / "psql", "-XAtq", "-d", uri, "-c", statement])
        psql(source, "CREATE PUBLICATION everything FOR ALL TABLES")
        try:
            psql(target, f"CREATE SUBSCRIPTION everything CONNECTION '{source}' PUBLICATION everything")
            wait_for(lambda: psql(target, "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate NOT IN ('r', 's')") == "0", "the initial synchronization", 1800, 0.1)
        finally:
            psql(target, "DROP SUBSCRIPTION IF EXISTS everything")
            psql(source, "DROP PUBLICATION everything")


class ReadFloor(Peer):
    """What reading alone takes: each table to nowhere, so many at once as there are jobs."""

    title = "floor: COPY TO nowhere"

    def go(self, source, target):
        command = quiet_psql(self.servers, source)
        each_table(self.servers, source, self.options.jobs, lambda table: run(command + ["-c", f"COPY {table} TO '{os.devnull}'"]))


class WriteFloor(Peer):
    """What writing alone takes: each table from a file, frozen, in the transaction that emptied it, without indexes."""

    title = "floor: COPY FROM a file"

    def copy(self, source, target):
        source, target = self.link(self.servers.source, source), self.link(self.servers.target, target)
        piped([client(self.servers, "pg_dump"), "--section=pre-data", "-d", source], quiet_psql(self.servers, target))
        folder = self.servers.home / "tables"
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        write, read = quiet_psql(self.servers, source), quiet_psql(self.servers, target)
        each_table(self.servers, source, self.options.jobs, lambda table: run(write + ["-c", f"COPY {table} TO '{folder / table}'"]))
        begun = time.monotonic()
        # One -c with several statements is one transaction.
        load = lambda table: run(read + ["-c", f"TRUNCATE {table}; COPY {table} FROM '{folder / table}' (FREEZE)"])
        each_table(self.servers, source, self.options.jobs, load)
        seconds = time.monotonic() - begun
        shutil.rmtree(folder)
        return Used(seconds)
