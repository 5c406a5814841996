"""A small crowd over a real lab, led by the code of ``dmpd canary --once`` in the test, with a hook at each phase."""

import asyncio
import contextlib
from collections.abc import Callable

from msgspec import structs

from dmpd.canary.run import Saved, run_once
from dmpd.canary.settings import CanarySettings, ThresholdSettings
from dmpd.cli.canary import platform_of
from dmpd.cli.config import CloudConfig
from dmpd.lab.certificates import CertificateAuthority
from dmpd.runtime.config import load
from tests.support.platform import LabUnderTest

CLIENTS = 30
CONTROL = 4
THRESHOLDS = ThresholdSettings(
    late_after_s=8.0,
    end_to_end_p99_max_s=6.0,
    lag_zero_max_s=8.0,
    control_during_p99_max_s=3.0,
    control_floor_s=3.0,
    baseline_floor_s=30.0,
)
"""Wide enough for a machine that does many things at once, narrow enough for faults of five seconds and more."""


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
    lab: LabUnderTest, *, at: dict[str, Callable[[], object]] | None = None, settings: CanarySettings | None = None
) -> Saved:
    """One run; ``at`` has what is done when a phase begins, by the phase's name, on a thread."""
    hooks, tasks = dict(at or {}), []

    def say(phase, figures):
        hook = hooks.pop(phase, None) if not figures else None
        if hook is not None:
            tasks.append(asyncio.create_task(asyncio.to_thread(hook)))

    platform = platform_of(load(lab.folder.config, CloudConfig))
    saved = await run_once(
        settings or small(lab),
        platform,
        trigger="hand",
        seed=1,
        say=say,
        stop=asyncio.get_running_loop().create_future(),
    )
    assert not hooks, f"phases that never came: {sorted(hooks)}"
    await asyncio.gather(*tasks)
    return saved


def names(saved: Saved, word: str = "fail") -> set[str]:
    """Names of the reasons with that word."""
    return {reason.name for reason in saved.report.reasons if reason.word == word}


def told(saved: Saved) -> str:
    """For the message of an assertion."""
    return "\n".join(
        f"{reason.word} {reason.name}: {reason.sentence} {list(reason.examples)[:3]}" for reason in saved.report.reasons
    )


@contextlib.contextmanager
def without(lab: LabUnderTest, part: str):
    """The lab without one of its parts, which is back and ready behind it."""
    lab.supervisor.stop(part)
    try:
        yield
    finally:
        lab.supervisor.restart(part)
