"""One RAE, wired: sources → registry → journal → uplink. Runs on an asyncio loop that it may share with other RAEs.

Life: ``run`` until ``drain`` was called and everything ended. ``tick`` comes from outside, about once a second, because
many simulated RAEs share one timer.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from dmpd import __version__
from dmpd.local_registry import metrics, schedule
from dmpd.local_registry.credentials import lacking
from dmpd.local_registry.device_control import DeviceControl, NoDeviceControl
from dmpd.local_registry.journal import Journal, utc_now
from dmpd.local_registry.rae_actions import RaeActions
from dmpd.local_registry.records import VendorOf, no_vendor
from dmpd.local_registry.registry import Registry
from dmpd.local_registry.requests import Requests
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.local_registry.source import Evidence, LanDown, LanSignal, LanSource
from dmpd.local_registry.sources import trouble
from dmpd.local_registry.store import StoreError
from dmpd.local_registry.uplink import Connect, Uplink
from dmpd.local_registry.verbs import Verbs
from dmpd.local_registry.waiting import WaitingRoom
from dmpd.model.codec import InvalidMessageError, encode
from dmpd.model.messages import RaeState, Roster, Status
from dmpd.model.topics import RAE_SESSION
from dmpd.runtime.certificate import days_left

DRAIN_S: Final = 15.0
RETRY_STORE_FIRST_S: Final = 1.0
RETRY_STORE_MAX_S: Final = 30.0
BUILD_YEAR: Final = 2025

_log = logging.getLogger(__name__)


class Engine:
    """One RAE. All methods on its event loop."""

    def __init__(
        self,
        settings: LocalRegistrySettings,
        sources: Sequence[LanSource],
        *,
        connect: Connect,
        executor: Executor,
        random: Callable[[], float],
        new_session: Callable[[], str],
        boot_id: str,
        slots: asyncio.Semaphore,
        vendor_of: VendorOf = no_vendor,
        control: DeviceControl | None = None,
    ) -> None:
        """Wire one RAE; nothing is opened yet.

        Args:
            settings: Its configuration.
            sources: Where evidence comes from; iterated by ``run``.
            connect: ``MqttClient.connect`` or its in-memory twin.
            executor: For the disk; may be shared.
            random: Uniform in [0, 1), for jitter.
            new_session: Gives a fresh device_session_id.
            boot_id: Of this machine's life: another one begins a new epoch.
            slots: Bounds how many connects are under way at once.
            vendor_of: Who made an interface, by its MAC.
            control: Does things to devices, by request; None = this RAE has no way to them.
        """
        self.rae = settings.rae
        self._settings = settings
        self._sources = sources
        self.registry = Registry(
            settings.rae, rules=settings.presence, new_session=new_session, random=random, vendor_of=vendor_of
        )
        asks = settings.lan.ssdp and settings.lan.interface is not None
        self._waiting = WaitingRoom(settings.lan.esn_wait_s if asks else 0.0)
        self.journal = Journal(
            self.registry,
            Path(settings.state_dir),
            bounds=settings.outbox,
            executor=executor,
            random=random,
            boot_id=boot_id,
        )
        self.uplink = Uplink(
            settings.rae,
            settings.mqtt,
            journal=self.journal,
            voice=self,
            connect=connect,
            random=random,
            slots=slots,
        )
        actions = RaeActions(self.registry, self.journal, self.uplink, probe=self._poke)
        self.requests = Requests(
            settings.rae,
            settings.requests,
            journal=self.journal,
            verbs=Verbs(actions, control or NoDeviceControl()),
            reply=self.uplink.reply,
            answered=self._wake_commits,
        )
        self.uplink.desk = self.requests
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._opened = asyncio.Event()
        self._last_tick_s = time.monotonic()
        self._last_status_s = time.monotonic() - random() * settings.status_interval_s  # many RAEs start at once
        self._tidying: asyncio.Task[None] | None = None
        self._probing: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._certificate_days: int | None = None

    async def run(self) -> None:
        """Serve until drained. A task that ends by an unforeseen error ends the whole engine with it."""
        if not await self._open():
            self._stopped.set()
            return
        self._opened.set()
        self._certificate_days = days_left(Path(self._settings.mqtt.cert_file), datetime.now(UTC))
        tasks = [asyncio.create_task(self._watch(source), name=f"{source.name} {self.rae}") for source in self._sources]
        uplink = asyncio.create_task(self.uplink.run(), name=f"uplink {self.rae}")
        commits = asyncio.create_task(self._commit_loop(), name=f"commits {self.rae}")
        requests = asyncio.create_task(self.requests.run(), name=f"requests {self.rae}")
        stopped = asyncio.create_task(self._stopped.wait(), name=f"end {self.rae}")
        everything = [*tasks, uplink, commits, requests, stopped]
        if self.journal.pending:
            self._wake.set()
        try:
            done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            while done and not self._stopped.is_set():
                for task in done:
                    everything.remove(task)
                    task.result()  # raises what it died of
                done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            await self.journal.close()

    async def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """End in order: sources quiet, requests ended, all committed, outbox durable or time up, ``disconnected``.

        Returns:
            Whether the outbox is empty. What is left waits on the disk for the next life.
        """
        self._stopping.set()
        empty = False
        if self._opened.is_set():
            deadline_s = time.monotonic() + timeout_s
            self._learn(self._waiting.due(math.inf))
            await self.requests.drain(timeout_s / 3)
            if self.journal.pending:
                await self.journal.commit()
                self.uplink.pump()
            empty = await self.uplink.drain(max(0.0, deadline_s - time.monotonic()))
            await self.uplink.stop()
            await self.journal.tidy(final=True)
        self._stopped.set()
        return empty

    def tick(self, now_s: float) -> None:
        """Let time pass: presence, probes, checkpoints, roster, status, tidying. Does not block."""
        if not self._opened.is_set() or self._stopping.is_set():
            return
        self.requests.alive(time.monotonic())
        since_s, self._last_tick_s = self._last_tick_s, now_s
        for probe in self.registry.tick(now_s):
            self._poke(probe.ip, probe.mac)
        if self.registry.pending:
            self._wake.set()
        interval_s = self._settings.checkpoint_interval_s
        for session in schedule.due(self.registry.devices, since_s=since_s, now_s=now_s, interval_s=interval_s):
            self.uplink.say_checkpoint(session)
        if any(schedule.due([self.rae], since_s=since_s, now_s=now_s, interval_s=interval_s)):
            self.uplink.say_rosters()
        if now_s - self._last_status_s >= self._settings.status_interval_s:
            self._last_status_s = now_s
            self._certificate_days = days_left(Path(self._settings.mqtt.cert_file), datetime.now(UTC))
            self.uplink.say()
        self.uplink.tick(now_s)
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self.journal.tidy(), name=f"tidy {self.rae}")

    def observe(self, signal: LanSignal) -> None:
        """Take in what a source says; the commit follows.

        A device that just arrived is asked at once what it is; if nothing is known of it, it waits for its ESN.
        """
        now_s, at = time.monotonic(), utc_now()
        if isinstance(signal, Evidence):
            if signal.arrived and signal.ip is not None:
                self._poke(signal.ip, signal.mac)
            known = signal.mac is not None and self.registry.identity.knows(signal.mac)
            ready = self._waiting.admit(signal, now_s, known=known)
            if not ready:
                # A little later than due: the loop's clock may call a tick early.
                asyncio.get_running_loop().call_later(self._waiting.wait_s + 0.01, self._end_wait)
            self._learn(ready)
        elif isinstance(signal, LanDown):
            self.registry.lan_down(now_s=now_s, at=at, epoch=self.journal.epoch)
            self.uplink.say(state="ready")
        else:
            self.registry.lan_up(now_s=now_s, at=at, epoch=self.journal.epoch)
            self.uplink.say(state="ready")
        if self.registry.pending:
            self._wake.set()

    def status(self, state: RaeState, run: int) -> Status:
        """The RAE as of now, for the wire."""
        journal = self.journal
        return Status(
            v=1,
            rae=self.rae,
            session=RAE_SESSION,
            epoch=journal.epoch,
            at=utc_now(),
            state=state,
            run=run,
            seq_high=journal.seq_high,
            version=__version__,
            lan=self._lan,
            outbox_rows=max(0, journal.rows),
            outbox_bytes=max(0, journal.bytes_held),
            outbox_age_s=self._outbox_age_s,
            events_dropped=journal.events_dropped + self.registry.events_dropped,
            clock="ok" if datetime.now(UTC).year >= BUILD_YEAR else "unsynchronised",
            certificate_days_left=self._certificate_days,
        )

    def rosters(self) -> list[Roster]:
        """All open sessions, as of the last committed outbox row."""
        return [
            Roster(
                v=1,
                rae=self.rae,
                session=RAE_SESSION,
                epoch=self.journal.epoch,
                at=utc_now(),
                first=part.first,
                last=part.last,
                sessions=part.sessions,
                seq_high=self.journal.seq_high,
            )
            for part in schedule.roster_parts(self.registry.open_sessions())
        ]

    def checkpoint(self, session: str, cause: str) -> bytes | None:
        """A checkpoint of ``session``, or None if it is not open any more, or stored over the limits of today."""
        message = self.registry.checkpoint(session, epoch=self.journal.epoch, at=utc_now(), cause=cause)
        try:
            return None if message is None else encode(message)
        except InvalidMessageError as error:  # it is cut with the next commit, which says so in a row
            _log.warning("checkpoint of %s refused: %s", session, error)
            return None

    @property
    def opened(self) -> bool:
        """Whether the store is open: from then on devices are kept, connected or not."""
        return self._opened.is_set()

    def problems(self) -> list[str]:
        """What makes this RAE degraded; empty = ready."""
        found = []
        if not self._opened.is_set():
            found.append("store not open yet")
        if self.journal.trouble is not None:
            found.append(f"store: {self.journal.trouble}")
        if self.uplink.problem is not None:
            missing = lacking(self.rae, self._settings.mqtt)
            found += [missing] if missing else []
            found.append(f"uplink: {self.uplink.problem}")
        if self.registry.lan_down_s is not None:
            found.append("the LAN is down")
        if datetime.now(UTC).year < BUILD_YEAR:
            found.append("the clock is wrong")
        return found

    def summary(self) -> dict[str, Any]:
        """For the control socket."""
        states: dict[str, int] = {}
        for device in list(self.registry.devices.values()):  # asked from another thread
            states[device.record.state] = states.get(device.record.state, 0) + 1
        return {
            "rae": self.rae,
            "epoch": self.journal.epoch,
            "committed": self.journal.committed,
            "outbox_rows": self.journal.rows,
            "outbox_bytes": self.journal.bytes_held,
            "outbox_age_s": round(self._outbox_age_s, 3),
            "connected": self.uplink.connected,
            "devices": states,
            "requests": self.requests.open,
            "problems": self.problems(),
            "certificate_days_left": self._certificate_days,
            "lan_troubles": trouble.current(),
        }

    def device_list(self) -> list[dict[str, Any]]:
        """The open device sessions, for the control socket; asked from another thread."""
        return [
            {"session": session, "rev": device.rev, "record": device.record}
            for session, device in sorted(self.registry.devices.items())
        ]

    @property
    def _lan(self) -> Literal["up", "down"]:
        return "up" if self.registry.lan_down_s is None else "down"

    @property
    def _outbox_age_s(self) -> float:
        at_ms = self.journal.oldest_at_ms
        return 0.0 if at_ms is None else max(0.0, time.time() - at_ms / 1000)

    def _learn(self, evidence: Sequence[Evidence]) -> None:
        for one in evidence:
            self.registry.observe(one, now_s=time.monotonic(), at=utc_now())
        if self.registry.pending:
            self._wake.set()

    def _wake_commits(self) -> None:
        self._wake.set()

    def _end_wait(self) -> None:
        if not self._stopping.is_set():
            self._learn(self._waiting.due(time.monotonic()))

    def _poke(self, ip: str, mac: str | None) -> None:
        for source in self._sources:
            self._keep(asyncio.create_task(source.poke(ip=ip, mac=mac), name="probe"))

    async def _open(self) -> bool:
        """Open the store, however long the disk refuses; False if told to stop before."""
        delay_s = RETRY_STORE_FIRST_S
        while not self._stopping.is_set():
            try:
                await self.journal.open()
            except (StoreError, OSError) as error:
                self.journal.trouble = str(error)
                _log.error("%s: store cannot be opened, tried again in %.0f s: %s", self.rae, delay_s, error)
                await self._pause(delay_s)
                delay_s = min(RETRY_STORE_MAX_S, delay_s * 2)
            else:
                return True
        return False

    async def _watch(self, source: LanSource) -> NoReturn:
        """Follow one source for ever; a source that fails is begun anew, and never takes the engine along."""
        while True:
            try:
                signals: AsyncIterator[LanSignal] = source.signals()
                async for signal in signals:
                    if not self._stopping.is_set():
                        self.observe(signal)
            except Exception:  # a source is hostile ground; counted, logged, begun anew
                metrics.source_failures.labels(source.name).inc()
                _log.exception("%s: source %s failed, begun anew in 5 s", self.rae, source.name)
            await asyncio.sleep(5)

    async def _commit_loop(self) -> NoReturn:
        delay_s = RETRY_STORE_FIRST_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            began_s = time.monotonic()
            if await self.journal.commit():
                delay_s = RETRY_STORE_FIRST_S
                self.uplink.pump()
                await asyncio.sleep(max(0.0, self._settings.commit_interval_s - (time.monotonic() - began_s)))
            else:
                await asyncio.sleep(delay_s)
                delay_s = min(RETRY_STORE_MAX_S, delay_s * 2)
                self._wake.set()

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._probing.add(task)
        task.add_done_callback(self._probed)

    def _probed(self, task: "asyncio.Task[None]") -> None:
        self._probing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            metrics.probes_failed.inc()
            _log.debug("%s: probe failed: %s", self.rae, task.exception())

    async def _pause(self, delay_s: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), delay_s)
        except TimeoutError:
            return
