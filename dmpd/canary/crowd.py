"""The clients of one process, led through a run step by step. ``crowd_process`` passes on what it is told.

Every step is bounded in time, and none raises for what a broker does: that is counted, and is what a run is about.
"""

import asyncio
import resource
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from dmpd.canary.arrivals import Finding
from dmpd.canary.client import CanaryClient, Share
from dmpd.canary.history import History, HistoryPart
from dmpd.canary.plan import Plan, flash_offsets_s, rae_of, ramp_offsets_s
from dmpd.canary.report import Counted
from dmpd.canary.settings import Profile, Ramp
from dmpd.model.codec import encode
from dmpd.model.messages import Closed
from dmpd.model.topics import info_topic
from dmpd.runtime.certificate import ends_at
from dmpd.runtime.mqtt_dial import Address, resolve
from dmpd.runtime.mqtt_mass import MassClient, Opened, client_context
from dmpd.runtime.mqtt_stream import MqttUnreachableError

_TICK_S: Final = 0.005
_PROGRESS_S: Final = 0.5
_IDLE_S: Final = 20.0
_BURST: Final = 200
"""Messages of a burst between two looks at the network."""
_LOOKS_AT_ONCE: Final = 50
_WIDE_PROBES: Final = 2
"""So many clients subscribe to ``#``: the broker checks each message for each of them."""
_HOLES_MAX: Final = 3
"""Examples of each kind of hole."""
_SWEEP_REV: Final = 1 << 40


class Job(Struct, frozen=True, kw_only=True):
    """What one process has to know."""

    plan: Plan
    """Its own clients."""
    whole_first: int
    whole_last: int
    """All clients of the crowd."""
    host: str
    port: int
    ca_file: str
    certificates_dir: str
    ramp: Ramp
    ramp_s: float
    profile: Profile
    flash_s: float
    probes: Sequence[int] = ()
    connect_timeout_s: float = 40.0
    puback_timeout_s: float = 30.0
    began_ns: int = 0
    """Monotonic, when ``plan.started_ms`` was."""


class Leftover(Struct, frozen=True):
    """A device session of a canary that somebody left open."""

    number: int
    session: str


class Connected(Struct, frozen=True, kw_only=True):
    """What the ramp was like; times in seconds, one for each client that got in."""

    clients: int
    codes: Mapping[str, int]
    errors: Counted
    syn_retries: int
    anew: int
    """Connections that the broker's queue dropped, and that were begun anew."""
    tcp_s: Sequence[float]
    tls_s: Sequence[float]
    connack_s: Sequence[float]
    took_s: float


class Told(Struct, frozen=True, kw_only=True):
    """What the process knows when its clients have left."""

    part: HistoryPart
    unsent: int
    holes: Counted
    refusals: int
    disconnects: Counted
    leftovers: Counted
    behind_s: float
    answered: int
    cpu_s: float
    rss_bytes: int


class Crowd:
    """``prepare``, ``connect``, ``flash``, ``close``, ``report``, ``cleanup``, in this order."""

    def __init__(self, job: Job, *, progress: Callable[[Mapping[str, Any]], None]) -> None:
        self.job = job
        plan = job.plan
        self._progress = progress
        self._share = Share(
            plan=plan,
            history=History(plan),
            began_ns=job.began_ns,
            heard=Finding(),
            taken=Finding(),
            disconnects=Finding(),
            leftovers=Finding(),
        )
        self._contexts: dict[int, ssl.SSLContext] = {}
        self._clients: dict[int, CanaryClient] = {}
        self._address: Address | None = None
        self._connect_errors = Finding()
        self._codes: Counter[str] = Counter()
        self._behind_s = 0.0
        self._watcher: asyncio.Task[None] | None = None
        self._beats: asyncio.Task[None] | None = None
        self._next_slot = 2

    async def prepare(self) -> None:
        """Read all certificates: nothing of it shall cost time in the ramp. Blocks the loop, which has no more to do.

        Raises:
            OSError: The CA's file cannot be read. MqttUnreachableError: The broker's name is none.
        """
        _raise_file_limit()
        self._address = await resolve(self.job.host, self.job.port)
        for number in self.job.plan.numbers:
            try:
                self._contexts[number] = self._context(number)
            except OSError as error:
                self._connect_errors.add(f"{rae_of(number)}: its certificate: {error}")

    async def connect(self) -> Connected:
        """The ramp: each client comes at its time, however the others fare."""
        job = self.job
        self._watcher = asyncio.create_task(self._watch(), name="progress and keepalive")
        offsets = ramp_offsets_s(job.ramp, job.ramp_s, job.whole_last - job.whole_first + 1)
        began_s = time.monotonic()
        opened: list[Opened] = []
        arriving = [
            asyncio.create_task(self._arrive(number, began_s + offsets[number - job.whole_first], opened))
            for number in self._contexts
        ]
        if arriving:
            await asyncio.wait(arriving)
        for task in arriving:
            task.result()
        return Connected(
            clients=len(opened),
            codes=self._codes,
            errors=counted(self._connect_errors),
            syn_retries=sum(one.syn_retries for one in opened),
            anew=sum(one.anew for one in opened),
            tcp_s=[one.tcp_s for one in opened],
            tls_s=[one.tls_s for one in opened],
            connack_s=[one.connack_s for one in opened],
            took_s=time.monotonic() - began_s,
        )

    async def flash(self) -> float:
        """Send every change in its time, the event behind them, the probes in between; wait for the PUBACKs.

        Returns the seconds that it took to have all of them, or to give up.
        """
        job, plan = self.job, self.job.plan
        began_s = time.monotonic()
        due = sorted(flash_offsets_s(job.profile, job.flash_s, plan, job.whole_last - job.whole_first + 1))
        self._probe_writes()
        for turn, (offset_s, number, slot) in enumerate(due):
            wait_s = began_s + offset_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(max(wait_s, _TICK_S))
            elif turn % _BURST == 0:
                await asyncio.sleep(0)
            if job.profile != "burst":
                self._behind_s = max(self._behind_s, time.monotonic() - began_s - offset_s)
            client = self._clients.get(number)
            if client is not None:
                client.send(slot)
                if slot == plan.event_slot - 1:
                    client.send(plan.event_slot)
        await self._settle()
        return time.monotonic() - began_s

    def beat(self, interval_s: float) -> None:
        """Have every client send one change each ``interval_s``, spread over it, until ``close``: a control group."""
        self._beats = asyncio.create_task(self._beat(interval_s), name="beats of the control group")

    async def close(self) -> None:
        """Close the device sessions, say goodbye, wait for the PUBACKs, leave."""
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.wait((self._beats,))
        for index, client in enumerate(self._clients.values()):
            client.send(self.job.plan.closed_slot)
            client.send(self.job.plan.farewell_slot)
            if index % _BURST == 0:
                await asyncio.sleep(_TICK_S)
        await self._settle()
        for client in self._clients.values():
            client.mqtt.leave()
        if self._watcher is not None:
            self._watcher.cancel()

    def report(self) -> Told:
        """What was done so far; at any time after ``connect``."""
        share = self._share
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Told(
            part=share.history.export(),
            unsent=sum(client.unsent for client in self._clients.values()),
            holes=Counted(
                count=share.taken.count + share.heard.count,
                examples=[*share.taken.examples[:_HOLES_MAX], *share.heard.examples[:_HOLES_MAX]],
            ),
            refusals=share.refusals,
            disconnects=counted(share.disconnects),
            leftovers=counted(share.leftovers),
            behind_s=self._behind_s,
            answered=share.answered,
            cpu_s=used.ru_utime + used.ru_stime,
            rss_bytes=_rss_bytes(),
        )

    async def cleanup(self) -> int:
        """Come back with everybody that got in and look for leftovers, for ``report``; how many could look."""
        gate = asyncio.Semaphore(_LOOKS_AT_ONCE)
        looked = await asyncio.gather(*(self._look(number, gate) for number in self._clients))
        return sum(looked)

    async def sweep(self, leftovers: Sequence[Leftover]) -> int:
        """Close device sessions that a crashed run left open, each as its own RAE; how many the broker took."""
        gate = asyncio.Semaphore(_LOOKS_AT_ONCE)
        return sum(await asyncio.gather(*(self._sweep(one, gate) for one in leftovers)))

    def abort(self) -> None:
        """Cut all connections."""
        for client in self._clients.values():
            client.mqtt.abort()

    async def _arrive(self, number: int, at_s: float, got_in: list[Opened]) -> None:
        assert self._address is not None
        await asyncio.sleep(max(0.0, at_s - time.monotonic()))
        client = CanaryClient(number, self._share, self._contexts[number])
        try:
            opened = await client.arrive(self._address, timeout_s=self.job.connect_timeout_s)
            self._codes[f"0x{opened.code:02x}"] += 1
            if opened.code >= 0x80:
                self._connect_errors.add(f"{client.rae}: CONNACK 0x{opened.code:02x}")
                return
            if number in self.job.probes:
                wide = number in self.job.probes[:_WIDE_PROBES]
                await client.probe_reads(self._neighbour(number), wide=wide)
        except (MqttUnreachableError, ConnectionError) as error:
            self._connect_errors.add(f"{client.rae}: {error}{self._ended(number)}")
            return
        got_in.append(opened)
        self._clients[number] = client
        client.send(0)
        client.send(1)

    def _probe_writes(self) -> None:
        for number in self.job.probes:
            if number in self._clients:
                self._clients[number].probe_writes(self._neighbour(number))

    def _neighbour(self, number: int) -> int:
        return number + 1 if number < self.job.whole_last else self.job.whole_first

    async def _beat(self, interval_s: float) -> None:
        clients = list(self._clients.values())
        began_s, turn = time.monotonic(), 0
        while clients:
            slot = 2 + turn // len(clients)
            if slot >= self.job.plan.event_slot:
                return
            await asyncio.sleep(max(0.0, began_s + interval_s * turn / len(clients) - time.monotonic()))
            clients[turn % len(clients)].send(slot)
            turn += 1

    async def _settle(self) -> None:
        deadline_s = time.monotonic() + self.job.puback_timeout_s
        for client in self._clients.values():
            while not client.idle and time.monotonic() < deadline_s:  # noqa: ASYNC110 - thousands would set the event
                await asyncio.sleep(4 * _TICK_S)

    async def _look(self, number: int, gate: asyncio.Semaphore) -> bool:
        assert self._address is not None
        client = CanaryClient(number, self._share, self._contexts[number])
        async with gate:
            try:
                await client.look(self._address, timeout_s=self.job.connect_timeout_s)
            except (MqttUnreachableError, ConnectionError) as error:
                self._connect_errors.add(f"{client.rae}: looking for leftovers: {error}")
                client.mqtt.abort()
                return False
            return True

    async def _sweep(self, leftover: Leftover, gate: asyncio.Semaphore) -> bool:
        assert self._address is not None
        rae = rae_of(leftover.number)
        acked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(code: int) -> None:
            if not acked.done():
                acked.set_result(code)

        client = MassClient(rae, on_message=_ignore, on_puback=lambda _, code: done(code), on_closed=lambda _: done(-1))
        now = datetime.now(UTC)
        closed = Closed(
            v=1,
            rae=rae,
            session=leftover.session,
            at=now.replace(microsecond=0),
            epoch=self.job.plan.epoch,
            rev=_SWEEP_REV,
            reason="left",
        )
        async with gate:
            try:
                context = self._contexts.get(leftover.number) or self._context(leftover.number)
                await client.open(self._address, context, clean_start=True, timeout_s=self.job.connect_timeout_s)
                client.publish(info_topic(rae, leftover.session), encode(closed), 0)
                return await asyncio.wait_for(acked, self.job.puback_timeout_s) == 0
            except (MqttUnreachableError, OSError, TimeoutError):
                return False  # the verdict says so: the row stays open, and retention removes it in time
            finally:
                client.leave()

    def _context(self, number: int) -> ssl.SSLContext:
        folder = Path(self.job.certificates_dir)
        stem = rae_of(number)
        ca = Path(self.job.ca_file).read_text(encoding="ascii")
        return client_context(ca, str(folder / f"{stem}.crt"), str(folder / f"{stem}.key"))

    def _ended(self, number: int) -> str:
        """Whether its certificate is over, which the broker may have no time to say before it hangs up."""
        ends = ends_at(Path(self.job.certificates_dir) / f"{rae_of(number)}.crt")
        return f" (its certificate expired {ends:%Y-%m-%d %H:%M} UTC)" if ends and ends < datetime.now(UTC) else ""

    async def _watch(self) -> None:
        """Say how far we are; ping for those that are silent."""
        while True:
            self._progress(
                {
                    "clients": sum(client.alive for client in self._clients.values()),
                    "failed": self._connect_errors.count,
                    "broken": self._share.disconnects.count,
                    "sent": self.job.plan.clients * self.job.plan.slots - self._share.history.sent_ns.count(0),
                    "acked": self._share.history.code.count(0),
                }
            )
            now_s = time.monotonic()
            for client in self._clients.values():
                client.mqtt.keep_alive(now_s, _IDLE_S)
            await asyncio.sleep(_PROGRESS_S)


def counted(finding: Finding) -> Counted:
    return Counted(count=finding.count, examples=finding.examples)


def _ignore(message: object) -> None:
    """A sweeper listens to nobody."""


def _raise_file_limit() -> None:
    """To what we may have: each client is a file, and 1024 is the usual limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
