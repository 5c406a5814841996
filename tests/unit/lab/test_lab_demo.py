"""The demo judges: it passes a platform that holds, and fails, by name, one that does not."""

from types import SimpleNamespace

import pytest

from dmpd.lab import demo as demo_module
from dmpd.lab.demo import KILLS, Demo, Verdict
from dmpd.lab.observation import DatabaseTotals, EdgeTotals, Observation
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
        self.totals = DatabaseTotals(rows=20, revs=100)
        self.edge = EdgeTotals(committed=100)
        self.lag = 0
        self.delays_ms = [10.0] * 99 + [400.0]
        self.cables = {"dut-1": "online", "dut-2": "online", "dut-3": "online"}
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

    def lan_states(self):
        return self.cables

    def verify(self):
        return self.verdict

    def stop(self, program):
        self.stopped.append(program)

    def states(self):
        return [PartState(part, "RUNNING", 4712, 1) for part in KILLS if part != "worker"]

    def kill(self, folder, part):
        self.killed.append(part)
        return 4711

    def dut(self, number):
        return SimpleNamespace(name=f"d{number}", hostname=f"dut-{number}")

    def unplug(self, name):
        self.cables["dut-1"] = "offline"

    def plug(self, name):
        self.cables["dut-1"] = "online"


@pytest.fixture
def platform(monkeypatch):
    clock = FakeClock()
    found = FakePlatform(clock)
    monkeypatch.setattr(demo_module, "time", clock)
    monkeypatch.setattr(demo_module, "kill", found.kill)
    monkeypatch.setattr(demo_module.lan_parts, "lan_of", lambda folder: found)
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
    )
    lab = SimpleNamespace(info=info, folder=None, supervisor=platform)
    demo = Demo(
        lab, platform, platform, say=lambda line: None, stop_requested=stop_requested, started_s=platform.clock.now_s
    )
    return demo.run()


def test_a_platform_that_holds_passes(platform):
    report = run_demo(platform)
    assert report.failures == []
    assert (report.kills, report.lost, report.wrong, report.lan_online, report.changes) == (5, 0, 0, 3, 100)
    assert (report.p50_ms, report.p99_ms) == (10.0, 400.0)
    assert platform.killed == list(KILLS)
    assert platform.stopped == ["simulate", "local-registry-lan"]


def test_without_a_lan_no_cable_is_pulled(platform):
    platform.cables = {}
    platform.totals = DatabaseTotals(rows=16, revs=100)
    report = run_demo(platform, lan=False)
    assert report.held
    assert report.lan_online == 0


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        ({"totals": DatabaseTotals(rows=18, revs=100)}, "all rows"),
        ({"totals": DatabaseTotals(rows=20, revs=99)}, "lost"),
        ({"edge": None}, "mosquitto killed, all changes"),
        ({"states": list}, "bridge killed, started again"),
        ({"lag": 3}, "nothing waits in Kafka"),
        ({"verdict": Verdict(committed=100, compared=20, missing=0, wrong=1)}, "1 wrong"),
        ({"verdict": Verdict(committed=100, compared=20, missing=2, wrong=0)}, "2 lost"),
        ({"cables": {"dut-1": "online", "dut-2": "online"}}, "3 devices of the LAN online"),
        ({"unplug": lambda name: None}, "unplugged is offline"),
        ({"take_delays_ms": list}, "no change became a row"),
    ],
)
def test_what_does_not_hold_is_named(platform, breaks, said):
    for name, value in breaks.items():
        setattr(platform, name, value)
    report = run_demo(platform)
    assert not report.held
    assert any(said in failure for failure in report.failures), report.failures


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
