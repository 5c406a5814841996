"""One run from its lease to its report. ``phases`` has what happens in between.

Whatever happens, the crowd's processes end, the lease goes back, and there is a report: of what could not be proved it
says ``unknown``.
"""

import asyncio
import contextlib
import logging
import os
import platform as machine
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import structs

from dmpd import __version__
from dmpd.canary import store
from dmpd.canary.phases import Phases, Say
from dmpd.canary.plan import Plan
from dmpd.canary.platform import Platform
from dmpd.canary.report import Former, Reason, Report
from dmpd.canary.settings import CanarySettings
from dmpd.canary.verdict import judge
from dmpd.canary.workers import CrowdFailedError
from dmpd.runtime.database import DatabaseError, DatabaseUnreachableError
from dmpd.runtime.errors import UnavailableError

_SAVE_S: Final = 60.0
_RETRY_S: Final = 1.0
_COMMON: Final = ("run", "trigger", "host", "build", "seed", "clients", "ramp", "profile", "changes")
"""What a report takes over from the line that began its run."""

_log = logging.getLogger(__name__)


class NotNowError(Exception):
    """Nothing was begun: the text says why."""


class BusyError(NotNowError):
    """Another run is under way."""


class DisabledError(NotNowError):
    """Somebody switched the canary off."""


async def run_once(
    settings: CanarySettings,
    platform: Platform,
    *,
    trigger: str,
    seed: int | None,
    say: Say,
    stop: Awaitable[object],
) -> Report:
    """Run, judge, keep; a report that could not be kept says so, and is no ``pass``.

    Takes as long as a run, at most the time box and a minute.

    Args:
        settings: Of the run.
        platform: What it is about.
        trigger: ``schedule`` or ``hand``, for the history.
        seed: Of all contents; ``None`` = a new one.
        say: Hears of progress.
        stop: When it is done, the run ends early, as ``unknown``.

    Raises:
        NotNowError: There was no run.
        UnavailableError, DatabaseError: The database did not answer: there was no run.
    """
    run = str(uuid.uuid4())
    holder = f"{machine.node()}:{os.getpid()}"
    new, former = await asyncio.to_thread(_begin, settings, platform, run, holder, trigger, seed)
    plan = Plan(
        run=run,
        seed=new.seed,
        epoch=new.epoch,
        first=1,
        last=settings.clients,
        changes=settings.changes,
        started_ms=time.time_ns() // 1_000_000,
    )
    started_at, began_s = datetime.now(UTC), time.monotonic()
    phases = Phases(settings, platform, plan=plan, former=former, say=say)
    async with _lease(platform, run) as lost:
        problems = await _guarded(phases, settings, lost, stop)
        return await _kept(settings, platform, new, phases, problems, started_at, began_s)


async def _kept(
    settings: CanarySettings,
    platform: Platform,
    new: store.NewRun,
    phases: Phases,
    problems: list[Reason],
    started_at: datetime,
    began_s: float,
) -> Report:
    """Judge what was seen, and keep it."""
    facts = phases.facts(problems)
    history = await asyncio.to_thread(_baseline, platform, new, settings.thresholds.baseline_runs)
    word, reasons = judge(facts, settings.thresholds, history)
    report = Report(
        verdict=word,
        reasons=reasons,
        started_at=started_at.isoformat(timespec="seconds"),
        took_s=round(time.monotonic() - began_s, 1),
        facts=facts,
        phases=phases.took_s,
        **{name: getattr(new, name) for name in _COMMON},
    )
    report = await asyncio.to_thread(_write_file, settings, report)
    problem = await _save(platform, report, settings.history_days)
    if problem is None:
        return report
    return await asyncio.to_thread(_write_file, settings, _unproved(report, _problem("report_not_saved", problem)))


def _begin(
    settings: CanarySettings, platform: Platform, run: str, holder: str, trigger: str, seed: int | None
) -> tuple[store.NewRun, list[Former]]:
    with store.connected(platform.database) as connection:
        if not store.take_lease(connection, run, holder):
            state = store.read_state(connection)
            if not state.enabled:
                raise DisabledError(f"disabled by {state.changed_by or 'somebody'}: {state.why or 'no reason given'}")
            raise BusyError(f"run {state.run} of {state.holder} is under way")
        epoch = max(time.time_ns() // 1_000_000, store.highest_epoch(connection) + 1)
        new = store.NewRun(
            run=run,
            trigger=trigger,
            host=machine.node(),
            build=__version__,
            epoch=epoch,
            seed=random.getrandbits(31) if seed is None else seed,
            clients=settings.clients,
            ramp=settings.ramp,
            profile=settings.profile,
            changes=settings.changes,
        )
        store.begin(connection, new)
        former = [
            Former(run=dead.run, started_at=dead.started_at.isoformat(timespec="seconds"), host=dead.host)
            for dead in store.end_dead(connection, run)
        ]
    return new, former


async def _guarded(
    phases: Phases, settings: CanarySettings, lost: "asyncio.Task[str]", stop: Awaitable[object]
) -> list[Reason]:
    """Run the phases within the time box, while we have the lease and nobody wants us to end; what kept us, if any."""
    working, stopped = asyncio.ensure_future(phases.run()), asyncio.ensure_future(_until(stop))
    watching = {lost: "lease_lost", stopped: "stopped"}
    problems: list[Reason] = []
    try:
        await asyncio.wait({working, *watching}, timeout=settings.time_box_s, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            ended = next((task for task in watching if task.done()), None)
            if ended is None:
                problems.append(_problem("time_box", f"not over within {settings.time_box_s:g} s; {phases.where}"))
            else:
                name, sentence = watching[ended], ended.result()
                problems.append(_problem("disabled" if "disabled by" in sentence else name, sentence))
            working.cancel()
            await asyncio.wait({working})
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
        await phases.end()
    if not working.cancelled():
        error = working.exception()
        if isinstance(error, (CrowdFailedError, UnavailableError, DatabaseError)):
            problems.append(_problem(_name_of(error), f"{phases.where}: {str(error).strip()}"))
        elif error is not None:
            raise error
    return problems


@contextlib.asynccontextmanager
async def _lease(platform: Platform, run: str) -> AsyncIterator["asyncio.Task[str]"]:
    """Keep the lease until the block's end, saving included; the task ends with why we have it no more."""
    lost = asyncio.create_task(_lost_lease(platform, run), name="the lease")
    try:
        yield lost
    finally:
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)


async def _lost_lease(platform: Platform, run: str) -> str:
    """Renew the lease for as long as it is ours; a database that is away is no reason to give up: nobody gets it."""
    while True:
        await asyncio.sleep(store.LEASE_S / 5)
        try:
            sentence = await asyncio.to_thread(_renew, platform, run)
        except (UnavailableError, DatabaseError) as error:
            _log.warning("the lease is not renewed: %s", str(error).strip())
            continue
        if sentence is not None:
            return sentence


async def _until(stop: Awaitable[object]) -> str:
    await stop
    return "somebody ended the runner"


def _renew(platform: Platform, run: str) -> str | None:
    with store.connected(platform.database) as connection:
        return store.renew_lease(connection, run)


def _baseline(platform: Platform, new: store.NewRun, runs_max: int) -> list[dict[str, float]]:
    try:
        with store.connected(platform.database) as connection:
            return store.baseline(connection, new, runs_max=runs_max)
    except (UnavailableError, DatabaseError) as error:
        _log.warning("no baseline: %s", str(error).strip())
        return []


def _write_file(settings: CanarySettings, report: Report) -> Report:
    """The report as it stands when it could be written; otherwise one that is no ``pass`` and says so."""
    if settings.report_dir is None:
        return report
    path = Path(settings.report_dir) / f"canary-{report.run}.json"
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        return _unproved(report, _problem("report_not_written", f"{path}: {error.strerror}"))
    return report


def _unproved(report: Report, problem: Reason) -> Report:
    return structs.replace(
        report, verdict="fail" if report.verdict == "fail" else "unknown", reasons=[*report.reasons, problem]
    )


async def _save(platform: Platform, report: Report, history_days: int) -> str | None:
    """Keep the report and give the lease back; a database that is away gets a minute. Returns why it did not work."""
    deadline_s = time.monotonic() + _SAVE_S
    while True:
        try:
            await asyncio.to_thread(_save_once, platform, report, history_days)
        except (UnavailableError, DatabaseError) as error:
            if time.monotonic() > deadline_s:
                return f"the database has no report of this run: {str(error).strip()}"
            await asyncio.sleep(_RETRY_S)
        else:
            return None


def _save_once(platform: Platform, report: Report, history_days: int) -> None:
    with store.connected(platform.database) as connection:
        store.end(connection, report, history_days=history_days)
        store.release_lease(connection, report.run)


def _name_of(error: Exception) -> str:
    if isinstance(error, (DatabaseError, DatabaseUnreachableError)):
        return "database_unreachable"
    return "crowd_failed" if isinstance(error, CrowdFailedError) else "kafka_unreachable"


def _problem(name: str, sentence: str) -> Reason:
    return Reason(name=name, word="unknown", sentence=sentence)
