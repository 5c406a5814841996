"""The whole platform over a real LAN: what happens to a device, or to the router, is what the rows say."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dmpd.lab import lan_parts
from dmpd.lab.duts import control
from dmpd.lab.lan import LAN_INTERFACE
from dmpd.lab.lan_tools import LanLabError
from dmpd.runtime.kafka_reader import TopicReader
from tests.support.platform import LabUnderTest, running_lab, until

pytestmark = [pytest.mark.services, pytest.mark.namespaces, pytest.mark.timeout(300)]

DUTS = 8
"""Several, because one that goes and returns twice in a few minutes is flapping: each test has its own."""
NOBODY = 65534
RAE = lan_parts.RAE
DAEMON = "local-registry-lan"
ROW_S = 90.0
"""Far above what it takes; what a device says once may be lost, and devices are searched for every 60 s."""


class LanUnderTest:
    """A lab with one LAN, its devices all online; its rows, and the changes that the RAE published."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.lan = lan_parts.lan_of(lab.folder)
        self.reader = TopicReader(lab.kafka, "dmp.info", start="beginning")
        self._messages: list[dict[str, object]] = []

    def rows(self) -> dict[str, dict[str, str]]:
        """Open sessions by host name."""
        found = self.lab.query(
            "SELECT i.hostname, d.session::text, d.state, d.esn, i.mac, i.ip4, i.vendor_class "
            "FROM device_session d "
            "JOIN device_interface i USING (rae, session) WHERE d.rae = %s AND d.closed_at IS NULL AND i.place = 0",
            RAE,
        )
        names = ("session", "state", "esn", "mac", "ip", "vendor_class")
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in found}

    def sessions(self) -> set[str]:
        return {row["session"] for row in self.rows().values()}

    def until_row(self, name: str, **expected: str) -> None:
        def holds() -> bool:
            row = self.rows().get(f"dut-{name[1:]}", {})
            return all(row.get(key) == value for key, value in expected.items())

        until(holds, f"{name} becomes {expected}", ROW_S, said=lambda: str(self.rows()))

    def all_online(self) -> bool:
        rows = self.rows().values()
        return len(rows) == DUTS and all(row["state"] == "online" and row["esn"] for row in rows)

    def all_known(self) -> bool:
        """Everything that a device says once only has arrived: dnsmasq's script may run seconds late."""
        return self.all_online() and all(row["vendor_class"] for row in self.rows().values())

    def do(self, command: str, dut: str, **more: str) -> dict[str, str]:
        return control.ask(self.lab.folder.duts_socket, command, dut, **more)

    def ask_all(self) -> dict[str, dict[str, str]]:
        return control.ask(self.lab.folder.duts_socket, "list")

    def messages(self, since: str = "") -> list[dict[str, object]]:
        """Everything the RAE published, of which the time is ``since`` or later."""
        while batch := self.reader.read(0.2, 10_000):
            found = [json.loads(record.value) for record in batch if record.value]
            self._messages += [one for one in found if one["rae"] == RAE]
        return [one for one in self._messages if str(one["at"]) >= since]

    def states_told(self, since: str) -> list[tuple[str, str]]:
        """``(session, state)`` of every message that says one."""
        bodies = [(str(one["session"]), one.get("set") or one.get("record") or {}) for one in self.messages(since)]
        return [(session, str(body["state"])) for session, body in bodies if "state" in body]  # type: ignore[index]

    def heard(self, dut: str) -> None:
        """Let a device say something: the router knows then its MAC and its port, as it does of who is in use."""
        told = self.do("wake", dut)

        def is_known() -> bool:
            ports = self.lab.lab("sh", "router", "--", "bridge", "fdb", "show", "br", LAN_INTERFACE).stdout
            addresses = self.lab.lab("sh", "router", "--", "ip", "neigh", "show", "dev", LAN_INTERFACE).stdout
            return told["mac"] in ports and f"{told['ip']} lladdr {told['mac']}" in addresses

        until(is_known, f"the router knows {told}", ROW_S)

    def daemon(self) -> dict[str, object]:
        return self.lab.health()[DAEMON]

    def router(self, *words: str) -> None:
        done = self.lab.lab("sh", "router", "--", *words)
        assert done.returncode == 0, done.stderr


def now() -> str:
    """As messages write it; the RAE has the same clock."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture(scope="module")
def lan():
    with running_lab("--lan", "--devices", str(DUTS)) as lab:
        found = LanUnderTest(lab)
        until(found.all_known, "all devices are online, each under all it says", 60, said=lambda: str(found.rows()))
        yield found
        found.reader.close()


@pytest.fixture(autouse=True)
def whole(lan):
    """Each test begins and ends with the same devices, all online."""
    until(lan.all_online, "all devices are online", 60, said=lambda: str(lan.rows()))
    sessions = lan.sessions()
    yield
    until(lan.all_online, "all devices are online again", 60, said=lambda: str(lan.rows()))
    assert lan.sessions() == sessions, "no session was lost, and none made"


def test_the_daemon_has_no_privileges(lan):
    state = next(part for part in lan.lab.supervisor.states() if part.name == DAEMON)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{state.pid}/status").read_text().splitlines())
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    assert status["NoNewPrivs"] == "1"
    # A checkout that is closed to nobody (under /root) leaves it its uid, the rest holds there as well.
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable]
    is_open = (
        subprocess.run([*as_nobody, "-c", "import dmpd"], cwd="/", capture_output=True, check=False).returncode == 0
    )
    assert set(status["Uid"].split()) == ({str(NOBODY)} if is_open else {"0"})


def test_a_row_has_what_the_device_is(lan):
    told = lan.ask_all()
    for name, dut in told.items():
        vendor_class = f"dmpd-lab-{name}"
        lan.until_row(name, mac=dut["mac"], esn=dut["esn"], ip=dut["ip"], vendor_class=vendor_class)
    assert len(told) == DUTS


def test_a_pulled_cable_is_offline_and_back_online(lan):
    assert lan.lab.lab("unplug", "d1").returncode == 0
    lan.until_row("d1", state="offline")
    assert lan.lab.lab("plug", "d1").returncode == 0
    lan.until_row("d1", state="online")


def test_neither_another_mac_nor_another_esn_is_another_device(lan):
    lan.heard("d2")
    since, session = now(), lan.rows()["dut-2"]["session"]
    mac = lan.do("swap-mac", "d2")["mac"]
    lan.until_row("d2", state="online", mac=mac, session=session)
    esn = lan.do("swap-esn", "d2")["esn"]
    lan.until_row("d2", state="online", esn=esn, session=session)
    assert not [one for one in lan.messages(since) if one["kind"] in ("closed", "event")]


def test_one_sleeps_one_is_in_standby_and_both_wake(lan):
    for dut, state in (("d4", "asleep"), ("d5", "standby")):
        lan.heard(dut)
        assert lan.lab.lab("sleep", dut).returncode == 0
        lan.until_row(dut, state=state)
        assert lan.lab.lab("wake", dut).returncode == 0
        lan.until_row(dut, state="online")


def test_a_stolen_esn_is_a_conflict_and_moves_nothing(lan):
    before = lan.rows()
    stolen = before["dut-3"]["esn"]
    own = lan.ask_all()["d6"]["esn"]
    since = now()
    lan.do("swap-esn", "d6", esn=stolen)

    def conflicts() -> list[dict[str, object]]:
        return [one for one in lan.messages(since) if one.get("code") == "identity_conflict"]

    try:
        until(conflicts, "a conflict is told", ROW_S)
        (event,) = conflicts()
        assert event["session"] == before["dut-6"]["session"]
        assert event["detail"]["holder"] == before["dut-3"]["session"]  # type: ignore[index]
        assert lan.rows()["dut-3"] == before["dut-3"]
    finally:
        lan.do("swap-esn", "d6", esn=own)


def no_false_offline(lan: LanUnderTest, happens: Callable[[], None], back: Callable[[], object]) -> None:
    """Let something happen to the router; nobody may be told offline, and everybody is online in the end."""
    since = now()
    happens()
    until(back, "the RAE is itself again", 60)
    until(lan.all_online, "all are online", 60, said=lambda: str(lan.rows()))
    assert "offline" not in [state for _, state in lan.states_told(since)]


def runs(lan: LanUnderTest, *, since: float) -> bool:
    """A daemon that started after ``since`` is ready."""
    state = next(part for part in lan.lab.supervisor.states() if part.name == DAEMON)
    return state.state == "RUNNING" and state.up_s <= time.monotonic() - since and lan.daemon().get("state") == "ready"


def test_a_killed_local_registry_comes_back_to_the_same_devices(lan):
    epoch = lan.daemon()["epoch"]
    began = time.monotonic()
    no_false_offline(lan, lambda: lan.lab.supervisor.signal(DAEMON, "KILL"), lambda: runs(lan, since=began - 2))
    assert lan.daemon()["epoch"] == epoch, "the store is the same"


def test_a_local_registry_that_was_away_comes_back_to_the_same_devices(lan):
    def restart() -> None:
        lan.lab.supervisor.stop(DAEMON)
        lan.lab.supervisor.restart(DAEMON)

    began = time.monotonic()
    no_false_offline(lan, restart, lambda: runs(lan, since=began - 2))


def test_a_device_that_left_meanwhile_is_not_told_online_after_the_restart(lan):
    session = lan.rows()["dut-8"]["session"]
    lan.lab.supervisor.stop(DAEMON)
    lan.lan.unplug("d8")
    since = now()

    def told() -> list[str]:
        return [state for one, state in lan.states_told(since) if one == session]

    try:
        lan.lab.supervisor.restart(DAEMON)
        # Unknown until somebody knows more. The kernel may know at once that there is no carrier, or take its address
        # for reachable for another 70 s.
        until(lambda: set(told()) & {"unknown", "offline"}, "d8 is doubted", 150, said=lambda: str(lan.rows()))
        assert "online" not in told()
    finally:
        lan.lan.plug("d8")
    lan.until_row("d8", state="online")


def test_a_restart_of_dnsmasq_takes_nobody_away(lan):
    def pid() -> int:
        return next(part.pid for part in lan.lab.supervisor.states() if part.name == "dnsmasq")

    before = pid()
    no_false_offline(lan, lambda: lan.lab.supervisor.signal("dnsmasq", "KILL"), lambda: pid() not in (0, before))


def test_a_lan_that_goes_down_is_one_event_and_takes_nobody_away(lan):
    since = now()

    def codes() -> list[object]:
        return [one["code"] for one in lan.messages(since) if one["kind"] == "event"]

    def bounce() -> None:
        lan.router("ip", "link", "set", LAN_INTERFACE, "down")
        until(lambda: codes() == ["lan_down"], "the LAN's end is told", ROW_S)
        lan.router("ip", "link", "set", LAN_INTERFACE, "up")

    no_false_offline(lan, bounce, lambda: codes() == ["lan_down", "lan_up"])


def test_a_router_whose_uplink_was_cut_publishes_what_happened_meanwhile(lan):
    since = now()
    lan.router("ip", "link", "set", "uplink", "down")
    lan.lan.unplug("d7")
    until(lambda: lan.daemon().get("devices", {}).get("offline") == 1, "the RAE itself knows", ROW_S)
    lan.lan.plug("d7")
    until(lambda: lan.daemon().get("devices", {}).get("online") == DUTS, "the RAE itself knows again", ROW_S)
    lan.router("ip", "link", "set", "uplink", "up")

    def told() -> list[str]:
        session = lan.rows()["dut-7"]["session"]
        return [state for one, state in lan.states_told(since) if one == session]

    until(lambda: told() == ["offline", "online"], "both changes arrive", 90)


def test_devices_that_all_restart_are_the_same_devices(lan):
    def pid() -> int:
        return next(part.pid for part in lan.lab.supervisor.states() if part.name == "duts")

    before = pid()
    lan.lab.supervisor.signal("duts", "KILL")
    until(lambda: pid() not in (0, before), "the devices' process is back", ROW_S)
    until(lambda: all(dut["leased_at"] for dut in asked(lan).values()), "all have asked for their addresses again", 60)


def asked(lan: LanUnderTest) -> dict[str, dict[str, str]]:
    try:
        return lan.ask_all()
    except LanLabError:  # it is just starting
        return {"none": {"leased_at": ""}}


@pytest.mark.slow
def test_a_silent_death_is_found_although_the_cable_is_in(lan):
    lan.router("ip", "neigh")  # as a person would look
    done = lan.lab.lab("sh", "d6", "--", "ip", "link", "set", "eth0", "arp", "off")
    assert done.returncode == 0, done.stderr
    died_s = time.monotonic()
    until(lambda: lan.rows()["dut-6"]["state"] == "offline", "d6 is found dead", 150)
    print(f"silent death → offline row: {time.monotonic() - died_s:.0f} s")
    assert lan.lab.lab("sh", "d6", "--", "ip", "link", "set", "eth0", "arp", "on").returncode == 0
    lan.do("wake", "d6")
    lan.until_row("d6", state="online")


def test_what_is_not_there_is_said_so(lan):
    for words, said in (
        (("unplug", "d9"), "there is no DUT d9; there are d1"),
        (("sh", "d9"), "there is no DUT d9"),
        (("swap-esn", "d1", "AB"), "an ESN is 4 to 128 of"),
        (("up", "--lan", "--no-lan"), "not allowed with"),
        (("up", "--lan", "--devices", "251"), "expected 1 to 250 devices on the LAN"),
    ):
        done = lan.lab.lab(*words)
        assert done.returncode != 0
        assert said in done.stderr, done.stderr
