"""``dmpd canary`` as a daemon: starts a run when one is due, and raises the alarm when none ended for too long.

A run is a process of its own (``dmpd canary --once``): whatever becomes of it, the daemon stays small and alive. Two
instances may run: both look at the same table, and the lease lets one of them through.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Any, Final, get_args

import msgspec

from dmpd.canary import metrics, store
from dmpd.canary.report import Word
from dmpd.canary.schedule import alarm, due_s
from dmpd.canary.settings import CanarySettings
from dmpd.runtime import exit_codes
from dmpd.runtime.database import DatabaseError
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.health import HealthServer
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import DatabaseSettings

PROGRAM: Final = "canary"
_LOOK_S: Final = 5.0
END_S: Final = 90.0
"""A run that is told to end saves its report first."""
_SAME_S: Final = 10.0
"""Two times of one run's start, asked of the database twice, differ by less."""
_LINE_BYTES_MAX: Final = 16 << 20

_log = logging.getLogger(__name__)


def run(settings: CanarySettings, *, database: DatabaseSettings, command: Sequence[str], lifecycle: Lifecycle) -> int:
    """Run until a signal ends it; blocks. ``command`` is one run, whose stdout ends with its report as JSON."""
    return asyncio.run(_Daemon(settings, database=database, command=command, lifecycle=lifecycle).run())


class _Daemon:
    def __init__(
        self, settings: CanarySettings, *, database: DatabaseSettings, command: Sequence[str], lifecycle: Lifecycle
    ) -> None:
        self._settings = settings
        self._database = database
        self._command = list(command)
        self._lifecycle = lifecycle
        self._began_s = time.monotonic()
        self._tried_s: float | None = None
        self._basis_s: float | None = None
        self._is_drawn = False
        self._due_at_s = 0.0
        self._state = store.State()
        self._ended_s: float | None = None
        """Monotonic, when the last run that is known of ended."""
        self._due_in_s: float | None = None
        self._running: asyncio.subprocess.Process | None = None
        self._last: store.Run | None = None

    async def run(self) -> int:
        self._lifecycle.install_async(asyncio.get_running_loop())
        health = HealthServer(self._settings.health_bind, self._lifecycle, self._status, alarm=self._alarm)
        metrics.ended_age.set_function(self._told_age_s)
        health.start()
        stopping = asyncio.ensure_future(self._lifecycle.wait_stop())
        try:
            while not self._lifecycle.stop_requested:
                await self._turn(stopping)
                await asyncio.wait({stopping}, timeout=_LOOK_S)
            self._lifecycle.set_state("draining")
        finally:
            stopping.cancel()
            self._lifecycle.set_state("stopped")
            health.stop()
        return exit_codes.OK

    def _status(self) -> dict[str, Any]:
        return {
            "alarm": self._alarm(),
            "enabled": self._state.enabled,
            "running": self._running is not None,
            "next_run_s": self._due_in_s,
            "last": None if self._last is None else msgspec.to_builtins(self._last),
        }

    def _ended_age_s(self) -> float | None:
        return None if self._ended_s is None else time.monotonic() - self._ended_s

    def _alarm(self) -> str | None:
        """As of now: a run that hangs, or a database that is away, must not keep it from being raised."""
        watched_s = time.monotonic() - self._began_s
        raised = alarm(ended_age_s=self._ended_age_s(), watched_s=watched_s, alarm_s=self._settings.alarm_s)
        if raised is not None and not self._state.enabled:
            raised += f"; disabled by {self._state.changed_by}: {self._state.why}"
        return raised

    def _told_age_s(self) -> float:
        age_s = self._ended_age_s()
        return -1.0 if age_s is None else age_s

    async def _turn(self, stopping: "asyncio.Future[None]") -> None:
        try:
            started_s = await asyncio.to_thread(self._look)
        except (UnavailableError, DatabaseError) as error:
            self._lifecycle.set_state("degraded", f"the database does not answer: {str(error).strip()}")
            return
        now_s = time.monotonic()
        self._lifecycle.set_state("ready")
        self._schedule(started_s, now_s)
        if self._state.enabled and now_s >= self._due_at_s:
            await self._start(stopping)

    def _schedule(self, started_s: float | None, now_s: float) -> None:
        """Draw the time of the next run once for each run that began, here or elsewhere, or could not."""
        began = [one for one in (started_s, self._tried_s) if one is not None]
        basis_s = max(began, default=None)
        if not self._is_drawn or (basis_s is not None and abs(basis_s - (self._basis_s or 0.0)) > _SAME_S):
            self._is_drawn, self._basis_s = True, basis_s
            self._due_at_s = due_s(
                basis_s,
                now_s,
                interval_s=self._settings.interval_s,
                jitter=self._settings.jitter,
                draw=random.random(),  # noqa: S311 - jitter
            )
        self._due_in_s = round(self._due_at_s - now_s, 1)

    def _look(self) -> float | None:
        """When the last run started (monotonic), by the database. Blocks."""
        with store.connected(self._database) as connection:
            self._state = store.read_state(connection)
            started_age_s, ended_age_s = store.ages_s(connection)
            ended = [run for run in store.last_runs(connection, 5) if run.ended_at is not None]
        self._last = ended[0] if ended else None
        now_s = time.monotonic()
        self._ended_s = None if ended_age_s is None else now_s - ended_age_s
        self._show()
        return None if started_age_s is None else now_s - started_age_s

    def _show(self) -> None:
        metrics.enabled.set(self._state.enabled)
        last = self._last
        if last is None:
            return
        for word in get_args(Word):
            metrics.verdict.labels(word).set(last.verdict == word)
        for name in ("lost", "wrong", "reordered", "late", "duplicates"):
            metrics.found.labels(name).set(getattr(last, name) or 0)
        for name, value_s in (last.p99s or {}).items():
            metrics.p99.labels(name).set(value_s)

    async def _start(self, stopping: "asyncio.Future[None]") -> None:
        """One run to its end; a stop ends it early, and it says so itself."""
        self._tried_s = time.monotonic()
        self._due_in_s = None
        _log.info("a run begins")
        self._running = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES_MAX,
        )
        try:
            ending = asyncio.create_task(process.communicate())
            waited: set[asyncio.Future[Any]] = {ending, stopping}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                process.terminate()
                await asyncio.wait({ending}, timeout=END_S)
        finally:
            self._running = None
            if process.returncode is None:
                process.kill()
                await process.wait()
        self._tell(process.returncode, ending.result()[0] if ending.done() else b"")

    @staticmethod
    def _tell(code: int | None, output: bytes) -> None:
        """One line of what came of it; the table has the rest."""
        try:
            report = msgspec.json.decode(output)
            word, reasons = str(report["verdict"]), [str(one["sentence"]) for one in report["reasons"]]
        except (msgspec.DecodeError, KeyError, TypeError):
            word, reasons = "none", [f"the run ended with {code} and no report"]
        metrics.runs.labels(word).inc()
        level = logging.INFO if word == "pass" else logging.WARNING
        _log.log(level, "verdict %s%s", word, "".join(f"; {sentence}" for sentence in reasons))
