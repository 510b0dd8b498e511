#!/usr/bin/env python3
"""Looks at the dashboard with a browser: headless Chromium, spoken to over a pipe.

A migration between two servers of its own, with names that would be scripts, is looked at while rows are copied, while the source is
followed, and once it is over, in narrow and wide windows, light and dark. Fails where a name ran as a script, where anything was asked
for elsewhere, where the page is wider than its window, or where the page complains. Screenshots go into FOLDER.

    tests/dashboard.py FOLDER          needs Chromium (Debian's package chromium), or $CHROMIUM; and a build of pgstream, or $PGSTREAM
"""

import base64
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "bench"))
from servers import Failure, Servers, wait_for  # noqa: E402

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--hide-scrollbars", "--remote-debugging-pipe",
]
SCRIPT = "<script>alert('x')</script><img src=x onerror=alert(1)>"
LOOKS = [(390, "light"), (390, "dark"), (1400, "light"), (1400, "dark")]


class Browser:
    """Chromium's debugging protocol over a pipe: objects, each ended by a zero byte."""

    def __init__(self, program):
        to_read, self.to_write = os.pipe()
        self.to_read, to_write = os.pipe()
        self.home = tempfile.mkdtemp(prefix="pgstream-browser.")
        # The browser reads its descriptor 3 and writes its descriptor 4.
        command = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "browser", program, *FLAGS, f"--user-data-dir={self.home}", "about:blank"],
            pass_fds=[to_read, to_write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.number, self.answers, self.events = 0, {}, []
        threading.Thread(target=self.read, daemon=True).start()
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def read(self):
        rest = b""
        while piece := os.read(self.to_read, 1 << 20):
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self.answers[message["id"]] = message
                else:
                    self.events.append(message)

    def ask(self, method, **parameters):
        self.number += 1
        question = {"id": self.number, "method": method, "params": parameters}
        if getattr(self, "session", None):
            question["sessionId"] = self.session
        os.write(self.to_write, json.dumps(question).encode() + b"\0")
        number = self.number
        answer = wait_for(lambda: self.answers.pop(number, None), method, 30)
        if "error" in answer:
            raise Failure(f"{method}: {answer['error']}")
        return answer["result"]

    def value(self, script):
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def look(browser, folder, name):
    for width, scheme in LOOKS:
        browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        time.sleep(0.3)
        wide = browser.value("document.documentElement.scrollWidth")
        if wide > width:
            raise Failure(f"{name}: the page is {wide} wide in a window of {width}")
        height = min(browser.value("document.documentElement.scrollHeight"), 3000)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = browser.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        (folder / f"{name}-{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))


def complaints(browser, origin):
    found = []
    for event in list(browser.events):
        parameters = event.get("params", {})
        match event["method"]:
            case "Page.javascriptDialogOpening":
                found.append(f"a script of a name ran: {parameters['message']}")
            case "Runtime.exceptionThrown":
                found.append(f"an exception: {parameters['exceptionDetails']}")
            case "Network.requestWillBeSent" if not parameters["request"]["url"].startswith((origin, "data:")):
                found.append(f"something was asked for elsewhere: {parameters['request']['url']}")
            case "Log.entryAdded" if parameters["entry"]["source"] != "network":
                found.append(f"the page complains: {parameters['entry']['text']}")
    return found


def fill(source):
    source.psql("postgres", "CREATE DATABASE app")
    source.psql(
        "app",
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.orders (id bigint PRIMARY KEY, note text)",
        "INSERT INTO shop.orders SELECT i, repeat('order ' || i, 40) FROM generate_series(1, 700000) i",
        "CREATE INDEX ON shop.orders (md5(note))",
        f'CREATE TABLE public."{SCRIPT}" (id integer PRIMARY KEY)',
        f'INSERT INTO public."{SCRIPT}" SELECT generate_series(1, 1000)',
        "CREATE TABLE shop.a_table_with_a_name_of_sixty_three_bytes_which_is_the_most_of_it (id integer PRIMARY KEY)",
        "CREATE UNLOGGED TABLE shop.basket (id integer PRIMARY KEY)",
        *(f"CREATE TABLE shop.part_{i} AS SELECT i FROM generate_series(1, {i * 1000}) i" for i in range(1, 12)),
    )


def migrate(pgstream, servers, folder, browser):
    source, target = servers.source, servers.target
    port = 18000 + os.getpid() % 1000
    origin = f"http://127.0.0.1:{port}/"
    running = subprocess.Popen(
        [pgstream, "migrate", "--source", source.uri("app"), "--target", target.uri("app"), "--method", "replication",
         "--replica-identity", "full", "--jobs", "1", "--dashboard", str(port), "--migration-id", "move-7"],
        stderr=open(folder / "stderr", "w"),
    )
    try:
        def opened():
            if running.poll() is not None:
                raise Failure(f"pgstream ended: {(folder / 'stderr').read_text()}")
            return "errorText" not in browser.ask("Page.navigate", url=origin)

        wait_for(opened, "the page", 30, 0.2)
        wait_for(lambda: "copy" in (browser.value("document.body.innerText") or ""), "the copy", 60, 0.2)
        wait_for(lambda: browser.value("document.querySelectorAll('tr.copying').length > 0"), "a table being copied", 60, 0.2)
        look(browser, folder, "copying")
        wait_for(lambda: browser.value("document.getElementById('badge').textContent") == "syncing", "being in step", 120, 0.5)
        for i in range(12):
            source.psql("app", f"UPDATE shop.orders SET note = 'changed' WHERE id % 50 = {i}")
            time.sleep(0.5)
        time.sleep(4)
        look(browser, folder, "syncing")
        text = browser.value("document.body.textContent")
        if SCRIPT not in text:
            raise Failure("the table whose name is a script is not shown by its name")
        running.send_signal(signal.SIGINT)
        running.wait(30)
        wait_for(lambda: not browser.value("document.getElementById('lost').hidden"), "the end being seen", 30, 0.5)
        look(browser, folder, "ended")
    finally:
        running.kill()
        running.wait()
    if found := complaints(browser, origin):
        raise Failure("\n".join(found))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    pgstream = os.environ.get("PGSTREAM", TESTS.parent / "target/debug/pgstream")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        sys.exit("dashboard.py: needs Chromium: apt-get install chromium")
    settings = {"wal_level": "logical", "fsync": "off", "full_page_writes": "off", "max_wal_size": "2GB"}
    try:
        with Servers(16, 18, settings) as servers:
            fill(servers.source)
            browser = Browser(chromium)
            try:
                migrate(pgstream, servers, folder, browser)
            finally:
                browser.close()
    except Failure as failure:
        sys.exit(f"dashboard.py: {failure}")
    print(f"the dashboard is as it should be; screenshots are in {folder}")


if __name__ == "__main__":
    main()
