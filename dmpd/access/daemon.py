"""``dmpd access``: start-up, health, and the end."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import uvloop
from msgspec import structs

from dmpd.access import dynsec, metrics
from dmpd.access.broker import BrokerGoneError, RuleBroker
from dmpd.access.feed import CheckSchema, Feed
from dmpd.access.journal import Journal
from dmpd.access.list_watch import ListWatch
from dmpd.access.reconciler import Connect, Reconciler, boot_s
from dmpd.access.settings import AccessSettings
from dmpd.runtime import exit_codes
from dmpd.runtime.health import ActionRefusedError, HealthServer
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import DatabaseSettings, MqttSettings
from dmpd.runtime.watchdog import Watchdog

PROGRAM: Final = "access"
_WATCH_S: Final = 0.1
_BEAT_S: Final = 1.0
_FIRST_ANSWER_S: Final = 0.5
"""For so long the database may say what is granted before ends are judged by what the broker holds."""
_COMPARE_S: Final = 10.0
_SHOWN_MAX: Final = 200
_PROBLEM_GRACE_S: Final = 1.0
"""Changes that are on their way for less than this are no problem."""

_log = logging.getLogger(__name__)


def run(
    settings: AccessSettings,
    *,
    mqtt: MqttSettings,
    database: DatabaseSettings,
    lifecycle: Lifecycle,
    check_schema: CheckSchema,
    crl_file: str | None,
) -> int:
    """Run access until a signal ends it; blocks. Returns the exit code.

    ``mqtt``: the broker; our certificate is the one that ``settings`` names. ``crl_file``: the list of revoked
    certificates that the broker reads; its end is watched.
    """
    own = structs.replace(mqtt, cert_file=settings.cert_file, key_file=settings.key_file)

    async def connect() -> RuleBroker:
        return await dynsec.connect(own, answer_timeout_s=settings.answer_timeout_s)

    daemon = Daemon(
        settings,
        connect=connect,
        database=database,
        lifecycle=lifecycle,
        check_schema=check_schema,
        list_watch=ListWatch(crl_file),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(daemon.run())


class Daemon:
    """One life of the daemon, on the loop that runs it."""

    def __init__(
        self,
        settings: AccessSettings,
        *,
        connect: Connect,
        database: DatabaseSettings,
        lifecycle: Lifecycle,
        check_schema: CheckSchema,
        list_watch: ListWatch,
    ) -> None:
        self._list_watch = list_watch
        self._settings = settings
        self._connect = connect
        self._database = database
        self._lifecycle = lifecycle
        self._check_schema = check_schema
        self._status: dict[str, Any] = {}
        self._watchdog = Watchdog()
        self._problem_since_s: float | None = None
        self._reconciler: Reconciler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> int:
        self._lifecycle.install_async(asyncio.get_running_loop())
        self._loop = asyncio.get_running_loop()
        actions = {"/reconcile": self._reconcile}
        health = HealthServer(self._settings.health_bind, self._lifecycle, lambda: self._status, actions=actions)
        health.start()
        self._watchdog.start()
        try:
            return await self._serve()
        finally:
            self._lifecycle.set_state("stopped")
            self._watchdog.stop()
            health.stop()

    async def _serve(self) -> int:
        wake = asyncio.Event()
        loop = asyncio.get_running_loop()

        def news() -> None:
            loop.call_soon(wake.set)

        journal = Journal(events_max=self._settings.events_max, on_news=news)
        reconciler = Reconciler(self._settings, connect=self._connect, journal=journal)
        self._reconciler = reconciler
        feed = Feed(
            self._settings,
            self._database,
            reconciler=reconciler,
            journal=journal,
            wake=wake,
            check_schema=self._check_schema,
        )
        feeding = asyncio.create_task(feed.run(), name="feed")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(feed.asked.wait(), _FIRST_ANSWER_S)
        reconciling = asyncio.create_task(reconciler.run(), name="reconciler")
        tasks = (feeding, reconciling)
        try:
            await self._watch(reconciler, feed, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return exit_codes.OK

    def _reconcile(self, arguments: Mapping[str, Any]) -> Any:
        """POST ``/reconcile``, on the server's thread."""
        if self._reconciler is None or self._loop is None:
            raise ActionRefusedError(503, "it is starting")
        asked = self._reconciler.compare(dry_run=bool(arguments.get("dry_run")))
        answer = asyncio.run_coroutine_threadsafe(asked, self._loop)
        try:
            found = answer.result(_COMPARE_S)
        except BrokerGoneError as error:
            raise ActionRefusedError(503, str(error)) from error
        except TimeoutError as error:
            answer.cancel()
            raise ActionRefusedError(504, f"the broker was not read within {_COMPARE_S:g} s") from error
        shown = [msgspec.json.encode(change).decode() for change in found[:_SHOWN_MAX]]
        return {"count": len(found), "changes": shown}

    async def _watch(self, reconciler: Reconciler, feed: Feed, tasks: "tuple[asyncio.Task[None], ...]") -> None:
        """Keep what readiness, status and metrics show true, until a signal comes or a task fails."""
        beat_s = 0.0
        while not self._lifecycle.stop_requested:
            for task in tasks:
                if task.done():
                    task.result()  # raises what it died of
            now_s = boot_s()
            self._show(reconciler, feed, now_s)
            if now_s - beat_s >= _BEAT_S:
                self._watchdog.beat()
                beat_s = now_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lifecycle.wait_stop(), _WATCH_S)
        self._lifecycle.set_state("draining")

    def _show(self, reconciler: Reconciler, feed: Feed, now_s: float) -> None:
        age_s = None if feed.answered_s is None else round(now_s - feed.answered_s, 3)
        metrics.database_age.set(-1 if age_s is None else age_s)
        list_ends_at = self._list_watch.look(now_s)
        self._status = reconciler.status() | {
            "database_age_s": age_s,
            "database_problem": feed.problem,
            "crl_ends_at": None if list_ends_at is None else list_ends_at.isoformat(),
        }
        problem = feed.problem or reconciler.problem
        if problem is None:
            self._problem_since_s = None
            self._lifecycle.set_state("ready")
            return
        if self._problem_since_s is None:
            self._problem_since_s = now_s
        if now_s - self._problem_since_s >= _PROBLEM_GRACE_S:
            self._lifecycle.set_state("degraded", problem)
