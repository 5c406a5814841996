"""The demo judges: it passes a platform that holds, and fails, by name, one that does not."""

from types import SimpleNamespace

import pytest

from dmpd.lab import demo as demo_module
from dmpd.lab import patience as patience_module
from dmpd.lab.demo import KILLS, Demo, Verdict
from dmpd.lab.observation import DatabaseTotals, EdgeTotals, LanDevice, Observation
from dmpd.lab.platform import LabInterruptedError
from dmpd.lab.server import ServerError
from dmpd.lab.state import LabInfo
from dmpd.lab.supervision import PartState


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s

    def sleep(self, duration_s):
        self.now_s += duration_s


class FakePlatform:
    """Observer, judge and supervisor of a platform that holds, unless a test breaks it."""

    def __init__(self, clock):
        self.clock = clock
        self.totals = DatabaseTotals(rows=21, revs=100)
        self.edge = EdgeTotals(committed=100)
        self.lag = 0
        self.delays_ms = [10.0] * 99 + [400.0]
        self.devices = {f"d{n}": {"mac": f"m{n}", "esn": f"e{n}", "state": "online"} for n in range(1, 6)}
        self.leased_at = 1000.0
        self.applied_at_s = 1000.25
        self.sessions_made = 0
        self.counted = {"launches": 3, "stops": 2}
        self.runs = 1
        self.outcome = "done"
        self.duts_on = False
        self.verdict = Verdict(committed=100, compared=20, missing=0, wrong=0)
        self.killed = []
        self.stopped = []

    @property
    def latest(self):
        return Observation(begun_s=self.clock.now_s, edge=self.edge, database=self.totals, lag=self.lag)

    def take_delays_ms(self):
        taken, self.delays_ms = self.delays_ms, []
        if not taken:
            self.delays_ms = [10.0] * 99 + [400.0]
        return taken

    def lan_devices(self):
        return [
            LanDevice(session=f"s{name}", hostname=f"dut-{name[1:]}", applied_at_s=self.applied_at_s, **found)
            for name, found in self.devices.items()
        ] * self.duts_on

    def start_duts(self):
        self.duts_on = True

    def ask(self, path, command, name):
        if command == "list":
            apps = {"Netflix": self.counted}
            return {dut: {"leased_at": self.leased_at, "apps": apps} for dut in self.devices}
        return getattr(self, command.replace("-", "_"))(self.devices[name])

    def sleep(self, device):
        device["state"] = "asleep" if device["mac"] == "m4" else "standby"
        return device

    def wake(self, device):
        device["state"] = "online"
        return device

    def swap_mac(self, device):
        device["mac"] = "other"
        return device

    def swap_esn(self, device):
        device["esn"] = "other"
        return device

    def request(self, session, verb, **args):
        assert args == {"app": "Netflix"}
        what = {"app.launch": "launches", "app.stop": "stops"}[verb]
        self.counted = self.counted | {what: self.counted[what] + self.runs}
        return self.outcome

    def verify(self):
        return self.verdict

    def stop(self, program):
        self.stopped.append(program)

    def states(self):
        return [PartState(part, "RUNNING", 4712, 1) for part in KILLS if part != "worker"]

    def kill(self, folder, part):
        self.killed.append(part)
        return 4711

    def duts(self):
        return [SimpleNamespace(name=f"d{number}", hostname=f"dut-{number}") for number in range(1, 6)]

    def unplug(self, name):
        self.devices[name]["state"] = "offline"

    def plug(self, name):
        self.devices[name]["state"] = "online"


@pytest.fixture
def platform(monkeypatch):
    clock = FakeClock()
    found = FakePlatform(clock)
    monkeypatch.setattr(demo_module, "time", clock)
    monkeypatch.setattr(demo_module, "kill", found.kill)
    monkeypatch.setattr(patience_module, "time", clock)
    monkeypatch.setattr(demo_module.lan_parts, "lan_of", lambda folder: found)
    monkeypatch.setattr(demo_module.control, "ask", found.ask)
    return found


def run_demo(platform, *, lan=True, stop_requested=lambda: False):
    info = LabInfo(
        pid=1,
        raes=2,
        devices=8,
        rate=1,
        mosquitto_port=1,
        kafka_port=2,
        parts=["simulate", "local-registry-lan"],
        lan=lan,
        duts=5,
    )
    folder = SimpleNamespace(duts_socket=None)
    lab = SimpleNamespace(info=info, folder=folder, supervisor=platform, start_duts=platform.start_duts)
    demo = Demo(
        lab, platform, platform, say=lambda line: None, stop_requested=stop_requested, started_s=platform.clock.now_s
    )
    return demo.run()


def test_a_platform_that_holds_passes(platform):
    report = run_demo(platform)
    assert report.failures == []
    assert (report.kills, report.lost, report.wrong, report.lan_online, report.changes) == (5, 0, 0, 5, 100)
    assert (report.p50_ms, report.p99_ms) == (10.0, 400.0)
    assert (report.dhcp_to_row_p99_s, report.sessions) == (0.25, 5)
    assert report.requests == {"done": 2}
    assert report.offline_s is not None
    assert report.back_s is not None
    assert platform.killed == list(KILLS)
    assert platform.stopped == ["simulate", "local-registry-lan"]


def test_without_a_lan_no_cable_is_pulled(platform):
    platform.devices = {}
    platform.totals = DatabaseTotals(rows=16, revs=100)
    report = run_demo(platform, lan=False)
    assert report.held
    assert report.lan_online == 0


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        ({"totals": DatabaseTotals(rows=18, revs=100)}, "all rows"),
        ({"totals": DatabaseTotals(rows=21, revs=99)}, "lost"),
        ({"edge": None}, "mosquitto killed, all changes"),
        ({"states": list}, "bridge killed, started again"),
        ({"lag": 3}, "nothing waits in Kafka"),
        ({"verdict": Verdict(committed=100, compared=20, missing=0, wrong=1)}, "1 wrong"),
        ({"verdict": Verdict(committed=100, compared=20, missing=2, wrong=0)}, "2 lost"),
        ({"start_duts": lambda: None}, "rows of 5 devices of the LAN"),
        ({"lan_devices": list}, "5 devices of the LAN online"),
        ({"unplug": lambda name: None}, "d1 unplugged is offline"),
        ({"applied_at_s": 1003.5}, "DHCP ACK → row, p99: 3.5 s, more than 2 s"),
        ({"swap_mac": lambda device: {"mac": "other"}}, "d2 with another MAC is the same device"),
        ({"swap_esn": lambda device: {"esn": "other"}}, "d3 with another ESN is the same device"),
        ({"sleep": lambda device: device}, "d4 switched off is asleep"),
        ({"outcome": "failed"}, "requests {'done': 0, 'failed': 2}"),
        ({"runs": 2}, "the device counted {'launches': 2, 'stops': 2}"),
        ({"take_delays_ms": list}, "no change became a row"),
        ({"take_delays_ms": lambda: [150.0] * 10}, "p50: 150.0 ms, more than 100 ms"),
        ({"take_delays_ms": lambda: [10.0] * 9 + [1500.0]}, "p99: 1500.0 ms, more than 1000 ms"),
    ],
)
def test_what_does_not_hold_is_named(platform, breaks, said):
    for name, value in breaks.items():
        setattr(platform, name, value)
    report = run_demo(platform)
    assert not report.held
    assert any(said in failure for failure in report.failures), report.failures


@pytest.mark.parametrize(
    ("act", "state", "slow_s", "said"),
    [
        ("unplug", "offline", 25.0, "unplugged → offline: 25."),
        ("plug", "online", 5.0, "plugged in → online: 5."),
    ],
)
def test_a_slow_row_is_named(platform, act, state, slow_s, said):
    """The row says it only when that much time has passed."""
    devices, clock = platform.devices, platform.clock
    asked_s = []

    def change_later(name):
        asked_s.append(clock.now_s)

    def rows_now():
        if asked_s and clock.now_s - asked_s[0] >= slow_s:
            devices["d1"]["state"] = state
        return FakePlatform.lan_devices(platform)

    setattr(platform, act, change_later)
    platform.lan_devices = rows_now
    report = run_demo(platform)
    assert any(failure.startswith(said) for failure in report.failures), report.failures


def test_a_device_that_became_another_session_is_named(platform):
    def onboard_anew(device):
        platform.devices["d9"] = {"mac": "other", "esn": "e2", "state": "online"}
        return {"mac": "other"}

    platform.swap_mac = onboard_anew
    report = run_demo(platform)
    assert "6 device sessions of 5 devices on the LAN" in report.failures


def test_a_part_that_cannot_be_killed_is_a_failure_and_no_kill(platform, monkeypatch):
    def refuse(folder, part):
        raise ServerError("not there")

    monkeypatch.setattr(demo_module, "kill", refuse)
    report = run_demo(platform)
    assert report.kills == 0
    assert len([failure for failure in report.failures if "not there" in failure]) == 5


def test_a_signal_ends_it_at_once(platform):
    with pytest.raises(LabInterruptedError):
        run_demo(platform, stop_requested=lambda: True)
