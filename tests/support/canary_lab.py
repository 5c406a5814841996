"""A small crowd over a real lab, led by the code of ``dmpd canary --once`` in the test, with a hook at each phase."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import psycopg
from msgspec import structs

from dmpd.canary.report import Report
from dmpd.canary.run import run_once
from dmpd.canary.settings import CanarySettings, ThresholdSettings
from dmpd.cli.canary import platform_of
from dmpd.cli.config import CloudConfig
from dmpd.lab.certificates import CertificateAuthority
from dmpd.runtime.config import load
from tests.support.platform import LabUnderTest, running_lab, until

CLIENTS = 30
CONTROL = 4
THRESHOLDS = ThresholdSettings(
    late_after_s=8.0,
    end_to_end_p99_max_s=6.0,
    lag_zero_max_s=8.0,
    control_during_p99_max_s=3.0,
    control_herd_p99_max_s=3.0,
    control_floor_s=3.0,
    baseline_floor_s=30.0,
)
"""Wide enough for a machine that does many things at once, narrow enough for faults of five seconds and more."""


@contextlib.contextmanager
def canary_lab() -> Iterator[LabUnderTest]:
    """A lab with one RAE of its own and certificates for the crowd."""
    with running_lab("--no-lan", "--raes", "1", "--devices", "3", "--rate", "2") as lab:
        issue(lab)
        yield lab


def ready(lab: LabUnderTest) -> None:
    """Wait until all its parts are."""
    until(lambda: all(part.state == "RUNNING" for part in lab.supervisor.states()), "all parts run", 60)
    until(lambda: all(one.get("state") == "ready" for one in lab.health().values()), "all daemons are ready", 60)


@contextlib.contextmanager
def whole_again(lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """``lab`` with all its parts ready and without runs, for a test; its parts are ready again behind it."""
    ready(lab)
    forget_canaries(lab)
    yield lab
    ready(lab)


def forget_canaries(lab: LabUnderTest) -> None:
    """No run before has left anything for the next to tell of."""
    execute(lab, "UPDATE device_session SET closed_at = now() WHERE rae LIKE 'canary-%' AND closed_at IS NULL")
    execute(lab, "DELETE FROM canary_run")


def execute(lab: LabUnderTest, statement: str) -> None:
    with psycopg.connect(lab.database.conninfo, autocommit=True) as connection:
        connection.execute(statement)


def broker_pid(lab: LabUnderTest) -> int:
    pid = next(part.pid for part in lab.supervisor.states() if part.name == "mosquitto")
    assert pid > 0, "the broker runs"
    return pid


def small(lab: LabUnderTest, **changes) -> CanarySettings:
    """Short phases and a crowd of ``CLIENTS``."""
    config = load(lab.folder.config, CloudConfig)
    return structs.replace(
        config.canary,
        **{
            "clients": CLIENTS,
            "control_clients": CONTROL,
            "processes": 2,
            "ramp_s": 0.5,
            "flash_s": 3.0,
            "before_s": 1.5,
            "after_s": 1.5,
            "changes": 6,
            "requests": 5,
            "probes": 4,
            "drain_timeout_s": 30.0,
            "connect_timeout_s": 20.0,
            "time_box_s": 120.0,
            "thresholds": THRESHOLDS,
        }
        | changes,
    )


def issue(lab: LabUnderTest) -> CertificateAuthority:
    authority = CertificateAuthority(lab.folder.tls)
    for number in range(1, CLIENTS + CONTROL + 1):
        authority.client(f"canary-{number:04}")
    return authority


async def run_small(
    lab: LabUnderTest,
    *,
    before: dict[str, Callable[[], object]] | None = None,
    at: dict[str, Callable[[], object]] | None = None,
    settings: CanarySettings | None = None,
) -> Report:
    """One run; ``before`` has what is done before a phase, by its name, ``at`` what a thread does from then on."""
    held, hooks, tasks = dict(before or {}), dict(at or {}), []

    def say(phase, figures):
        if figures:
            return
        held.pop(phase, bool)()
        hook = hooks.pop(phase, None)
        if hook is not None:
            tasks.append(asyncio.create_task(asyncio.to_thread(hook)))

    platform = platform_of(load(lab.folder.config, CloudConfig))
    report = await run_once(
        settings or small(lab),
        platform,
        trigger="hand",
        seed=1,
        say=say,
        stop=asyncio.get_running_loop().create_future(),
    )
    await asyncio.gather(*tasks)
    assert not hooks | held, f"phases that never came: {sorted(hooks | held)}"
    return report


BROKEN = frozenset({"disconnects", "control_disconnects"})
"""Beside other tests a broker's connections break now and then, and the verdict says so: then no run can pass."""


async def run_unbroken(lab: LabUnderTest, report: Report, *, tries: int = 3) -> Report:
    """``report``, or the first of ``tries`` further runs in which no connection broke."""
    while names(report) & BROKEN and tries:
        assert report.verdict == "fail", told(report)
        ready(lab)
        forget_canaries(lab)
        report, tries = await run_small(lab), tries - 1
    return report


def names(report: Report, word: str = "fail") -> set[str]:
    """Names of the reasons with that word."""
    return {reason.name for reason in report.reasons if reason.word == word}


def told(report: Report) -> str:
    """For the message of an assertion."""
    lines = [f"{one.word} {one.name}: {one.sentence} {list(one.examples)[:3]}" for one in report.reasons]
    return "\n".join([*lines, f"phases: {dict(report.phases)}"])


@contextlib.contextmanager
def without(lab: LabUnderTest, part: str):
    """The lab without one of its parts, which is back and ready behind it."""
    lab.supervisor.stop(part)
    try:
        yield
    finally:
        lab.supervisor.restart(part)
