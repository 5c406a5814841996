"""docs/users.md as it is written: its programs watch a granted device of a real RAE, ask it, and survive 0x98."""

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest

from dmpd.access import exchange
from tests.support import document_blocks
from tests.support.access import access_rig
from tests.support.edge_bridge import EdgeBridge
from tests.support.platform import BIN, until
from tests.support.services import public_folder

pytestmark = [pytest.mark.services, pytest.mark.slow]
PAGE = (document_blocks.ROOT / "docs" / "users.md").read_text()
WAIT_S = 60.0
RAE = "sim-0001"
USERS = ("u-team1", "u-team1.watch", "u-team1.scout")


class Output:
    """Lines of a program that goes on, as they come."""

    def __init__(self, command, folder, environment):
        self.lines = []
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line.rstrip())

    def waits_for(self, pattern, *, behind=0):
        """The number of lines up to the first one that matches."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            for number, line in enumerate(self.lines[behind:], start=behind + 1):
                if re.search(pattern, line):
                    return number
            assert time.monotonic() < deadline_s, f"no line {pattern!r} in {self.lines[-20:]}"
            assert self._process.poll() is None, f"ended: {self.lines[-20:]}"
            time.sleep(0.05)

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            subprocess.run(["kill", "-s", "KILL", "--", f"-{self._process.pid}"], check=False, capture_output=True)
        self._process.wait(10)
        self._reader.join(10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def place(postgres_server):
    """Broker, access, a RAE with one device, and a user's folder; in it the names of the page."""
    with public_folder() as root, postgres_server.database() as database, access_rig(root, database) as rig:
        folder = root / "user"
        folder.mkdir()
        for name in USERS:
            files = rig.broker.authority.client(name)
            shutil.copy(files.cert, folder)
            shutil.copy(files.key, folder)
            with rig.connection() as connection:
                exchange.know_user(connection, name)  # as dmpctl access ca does when it makes the certificate
        until(lambda: rig.daemon.status().get("users") == len(USERS), "the broker knows the users")
        shutil.copy(rig.broker.authority.ca_file, folder)
        rig.broker.authority.client(RAE)
        rig.folder, rig.root = folder, root
        command = [str(BIN / "dmpd"), "local-registry", "--simulate", "1", "--devices", "1", "--rate", "2"]
        command += ["--state-dir", str(root / "rae"), "--certificates", str(rig.broker.authority.folder)]
        stop = start_bridge(rig.broker.settings("svc-bridge"))
        edge = Output([*command, "--mqtt-port", str(rig.broker.port)], root, None)
        try:
            rig.session = session_of(rig)
            yield rig
        finally:
            edge.end()
            stop()


def start_bridge(settings):
    """What makes a RAE's rows durable, on a thread; returns what ends it."""
    loop, bridge = asyncio.new_event_loop(), EdgeBridge()

    async def start():
        await bridge.open(settings)
        await bridge._client.subscribe(["dmp/v1/+/+/rsp/+"])

    def run():
        loop.run_forever()
        loop.run_until_complete(bridge.close())
        loop.close()

    loop.run_until_complete(start())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def stop():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

    return stop


def session_of(rig):
    """The device's, as somebody hears it who was granted the whole RAE."""
    granted = rig.grant("u-team1.scout", rae=RAE, session=None)
    scout = Output(mosquitto_sub(rig, "u-team1.scout", f"dmp/v1/{RAE}/+/info"), rig.folder, None)
    try:
        scout.waits_for(rf"dmp/v1/{RAE}/[0-9a-f-]{{36}}/info")
        found = re.search(rf"dmp/v1/{RAE}/([0-9a-f-]{{36}})/info", "\n".join(scout.lines))
    finally:
        scout.end()
        rig.revoke(granted.id)
    until(lambda: rig.daemon.is_done(rules=0), "the scout's grant is over")
    return found[1]


def mosquitto_sub(rig, name, topic):
    loop = "while true; do mosquitto_sub -V 5 -h 127.0.0.1 -p {} --cafile ca.crt --cert {}.crt --key {}.key -i {} -q 1"
    return ["bash", "-c", f"{loop.format(rig.broker.port, name, name, name)} -v -t '{topic}'; sleep 0.2; done"]


def variables(rig):
    """What the first line of each block exports, for this broker."""
    found = {"BROKER": "127.0.0.1", "PORT": str(rig.broker.port), "RAE": RAE, "SESSION": rig.session}
    return f"export {' '.join(f'{name}={value}' for name, value in found.items())}\n"


def script(rig, beginning):
    """The block with such a line, as it stands but for its first line."""
    blocks = [one.text for one in document_blocks.of_kind("tests/integration/test_users_page.py")]
    (text,) = [one for one in blocks if re.search(rf"^ *{beginning}", one, re.MULTILINE)]
    first, _, rest = text.partition("\n")
    assert re.sub(r"=\S+", "", first) == re.sub(r"=\S+", "", variables(rig).strip())
    return ["bash", "-c", f"PATH={BIN}:$PATH\n" + variables(rig) + rest]


@pytest.fixture
def grant(place):
    """Grants a device, or takes it away; at the end nobody holds anything."""
    held = []

    def give(user, level="read"):
        held.append(place.grant(user, rae=RAE, session=place.session, level=level).id)
        return held[-1]

    def take(one):
        held.remove(one)
        place.revoke(one)

    give.back = take
    yield give
    for one in held:
        place.revoke(one)
    until(lambda: place.daemon.is_done(rules=0), "nobody holds anything")


@pytest.fixture
def python(place):
    """The page's program, running."""
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (place.folder / "watch.py").write_text(program)
    command = script(place, "python3 watch.py")
    command[-1] = command[-1].replace("python3 watch.py", f"{sys.executable} watch.py")
    found = Output(command, place.folder, None)
    yield found
    found.end()


def test_the_python_program_watches_asks_and_comes_back(place, grant, python):
    at = python.waits_for("^not granted now|^response|^disconnected")
    granted = grant("u-team1", "command")
    at = python.waits_for("^watching", behind=at - 1)
    at = python.waits_for("^response accepted", behind=at)
    python.waits_for("^response done", behind=at)
    python.waits_for("^(checkpoint|change) .*" + place.session, behind=at)
    grant.back(granted)
    at = python.waits_for("^disconnected: .*[Aa]dministrative", behind=at)
    at = python.waits_for("^not granted now", behind=at)
    grant("u-team1")
    at = python.waits_for("^disconnected: .*[Aa]dministrative", behind=at)
    at = python.waits_for("^watching", behind=at)
    python.waits_for("^request refused: Not authorized", behind=at)
    python.waits_for("^change ", behind=at)


def test_mosquitto_sub_watches_and_comes_back(place, grant):
    granted = grant("u-team1.watch")
    watcher = Output(script(place, "mosquitto_sub"), place.folder, None)
    try:
        at = watcher.waits_for(place.session)
        grant.back(granted)
        at = watcher.waits_for(r"(?i)not authorized|administrative|denied", behind=at)
        grant("u-team1.watch")
        watcher.waits_for(place.session, behind=at)
    finally:
        watcher.end()


def test_mosquitto_rr_asks_and_gets_the_outcome(place, grant):
    grant("u-team1", "command")
    deadline_s = time.monotonic() + WAIT_S
    while True:
        done = subprocess.run(
            script(place, "mosquitto_rr"), cwd=place.folder, capture_output=True, text=True, timeout=90, check=False
        )
        if '"outcome":"done"' in done.stdout:
            assert done.stdout.count("my-request-1") == 2
            return
        assert time.monotonic() < deadline_s, done.stdout + done.stderr
        time.sleep(0.2)
