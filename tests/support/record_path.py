"""A small world of the record path: one RAE, a faulty network, one Kafka partition, readers that replay, and the rows.

The RAE side is a sketch of its rules (epochs, restamping, checkpoint rows, ``durable``); what is judged are the rules
of ``dmpd.model``: they come in as ``Rules``, so that a test can take one away and see the world go wrong.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import Raw

from dmpd.model import apply as apply_rules
from dmpd.model import fold as fold_rules
from dmpd.model import rae as rae_rules
from dmpd.model.apply import DeviceRow
from dmpd.model.epochs import RANDOM_VALUES, is_raise_obeyed, next_epoch
from dmpd.model.messages import Roster, Status
from dmpd.model.rae import RaeRow
from dmpd.model.record import DeviceRecord, RecordPatch
from tests.support.messages import AT, RAE, change, checkpoint, closed, session_id

CLOCK_MS = 1_764_000_000_000
BOOT_MS = 100_000
"""A boot takes longer than the random part of an epoch is large."""
DEVICES_MAX = 4
NAMES = ("a", "b", "c")
ROUNDS_OF_HEALING = 5


class WrongError(AssertionError):
    """A promise is broken: a row is wrong and does not say so, or does not heal."""


@dataclass(frozen=True)
class Rules:
    """The rules under test, and those of the RAE that a history of its own is about."""

    fold: Callable = fold_rules.fold
    apply: Callable = apply_rules.apply
    apply_roster: Callable = rae_rules.apply_roster
    apply_status: Callable = rae_rules.apply_status
    obeys_raise: Callable = is_raise_obeyed
    obeys_forget: bool = True
    epoch_per_boot: bool = True
    restamps: bool = True


@dataclass
class Row:
    """A row of the outbox. ``epoch`` is stamped when it is sent and stays (sent rows are frozen)."""

    seq: int
    session: str
    rev: int
    content: dict[str, int] | None = None
    patch: dict[str, int] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    epoch: int | None = None

    def message(self):
        if self.content is not None:
            return checkpoint(self.rev, record_of(self.content), epoch=self.epoch, seq=self.seq, session=self.session)
        if not self.patch and not self.unset:
            return closed(self.rev, epoch=self.epoch, seq=self.seq, session=self.session)
        patch = RecordPatch(attributes=raw(self.patch))
        return change(self.rev, epoch=self.epoch, seq=self.seq, session=self.session, patch=patch, unset=self.unset)


@dataclass
class Device:
    session: str
    rev: int = 0
    content: dict[str, int] = field(default_factory=dict)
    history: dict[int, dict[str, int]] = field(default_factory=dict)


@dataclass
class Edge:
    """The RAE's store: what an image of its disk has."""

    epoch: int
    seq: int = 0
    devices: dict[str, Device] = field(default_factory=dict)
    outbox: list[Row] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    """Sessions with a checkpoint row in this epoch: a session's first row of an epoch is one."""


class World:
    """Everything, and the moves that can happen to it. A move takes two small numbers that say which and how."""

    MOVES = (
        "onboard",
        "set_value",
        "set_value",
        "unset_value",
        "close",
        "send",
        "send",
        "send_roster",
        "send_checkpoint",
        "read",
        "read",
        "replay",
        "take_image",
        "restore_image",
        "lose_store",
        "reboot",
    )

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.clock_ms = CLOCK_MS
        self.edge = Edge(epoch=CLOCK_MS)
        self.image: Edge | None = None
        self.boots = 0
        self.sessions = 0
        self.values = 0
        self.log: list = []
        self.positions = [0, 0]
        self.rows: dict[str, DeviceRow] = {}
        self.truth: dict[tuple[str, int, int], dict[str, int]] = {}
        self.rae: RaeRow | None = None
        self.ended: set[str] = set()
        self.raises: list = []
        self.forgets: list[str] = []

    def run(self, moves: Sequence[tuple[str, int, int]]) -> None:
        for name, x, y in moves:
            getattr(self, name)(x, y)
        self.heal()

    # The RAE.

    def onboard(self, x: int, y: int) -> None:
        if len(self.edge.devices) < DEVICES_MAX:
            self.sessions += 1
            session = session_id(self.sessions)
            self.edge.devices[session] = Device(session)
            self._commit(self.edge.devices[session], {NAMES[x % 3]: self._value()}, ())

    def set_value(self, x: int, y: int) -> None:
        if device := self._device(x):
            self._commit(device, {NAMES[y % 3]: self._value()}, ())

    def unset_value(self, x: int, y: int) -> None:
        if device := self._device(x):
            self._commit(device, {}, (NAMES[y % 3],))

    def close(self, x: int, y: int) -> None:
        if device := self._device(x):
            self._close(device)

    def take_image(self, x: int, y: int) -> None:
        self.image = copy.deepcopy(self.edge)

    def restore_image(self, x: int, y: int) -> None:
        if self.image is not None:
            self.edge = copy.deepcopy(self.image)
            self.reboot(x, y)

    def reboot(self, x: int, y: int) -> None:
        if self.rules.epoch_per_boot:
            self._new_epoch(self.edge.epoch)

    def lose_store(self, x: int, y: int) -> None:
        """The database is gone; the identity file still names the sessions. An odd ``y``: the clock is at 1970."""
        devices = [Device(device.session, 0, dict(device.content)) for device in self.edge.devices.values()]
        clock, self.clock_ms = self.clock_ms, 0 if y % 2 else self.clock_ms
        self.edge = Edge(epoch=0)
        self._new_epoch(0)
        self.clock_ms = max(clock, self.clock_ms)
        for device in devices:
            self.edge.devices[device.session] = device
            self._commit(device, {}, ())

    # The network: what is lost was not durable, what is durable may be repeated.

    def send(self, x: int, y: int) -> None:
        """Status, then the first rows; one may be lost, the ``durable`` too, and neighbours may change places."""
        self._send_status()
        stored = set()
        for index, row in enumerate(self.edge.outbox[: 1 + x % 4]):
            if row.epoch is None:
                row.epoch = self.edge.epoch
                self._remember(row)
            if y & 1 and index == x // 4:
                continue
            self._append(row.message(), overtakes=bool(y & 4))
            if row.epoch == self.edge.epoch:
                stored.add(row.seq)
        if not y & 2:
            self.edge.outbox = [row for row in self.edge.outbox if row.seq not in stored]

    def send_checkpoint(self, x: int, y: int) -> None:
        """A periodic checkpoint is no outbox row: it overtakes rows that wait. A status began the connection."""
        self._send_status()
        if (device := self._device(x)) and not y & 1:
            self._send_checkpoint(device)

    def send_roster(self, x: int, y: int) -> None:
        if y & 1:
            return
        roster = Roster(
            v=1,
            rae=RAE,
            session="rae",
            at=AT,
            epoch=self.edge.epoch,
            first=session_id(0),
            last=session_id(0xFFFF_FFFF),
            sessions=tuple(self.edge.devices),
            seq_high=self.edge.seq,
        )
        self._append(roster, overtakes=bool(y & 4))

    # The cloud.

    def read(self, x: int, y: int) -> None:
        """One of two readers (a zombie and its successor) takes the next records as one batch."""
        reader, size = x % 2, 1 + y % 6
        batch = self.log[self.positions[reader] : self.positions[reader] + size]
        self.positions[reader] += len(batch)
        folds: dict = {}
        for message in batch:
            if isinstance(message, Roster):
                self._write(folds)
                self._apply_roster(message)
                continue
            if isinstance(message, Status):
                self._apply_status(message)
                continue
            fold = fold_rules.fold_of(message)
            known = folds.get(message.session)
            folds[message.session] = fold if known is None else self.rules.fold(known, fold)
        self._write(folds)
        self.check()

    def replay(self, x: int, y: int) -> None:
        """A reader dies before it committed its last records."""
        self.positions[x % 2] = max(0, self.positions[x % 2] - 1 - 2 * y)

    def check(self) -> None:
        """No row is wrong while it is not stale, and what ended stays so."""
        for row in self.rows.values():
            if row.closed is not None:
                self.ended.add(row.session)
                continue
            if row.session in self.ended:
                raise WrongError(f"{row.session} had ended, and lives again")
            if row.stale:
                continue
            true = self.truth.get((row.session, row.epoch, row.rev))
            if content_of(row) != true:
                raise WrongError(f"{row.session} at {row.epoch}, {row.rev}: {content_of(row)}, but it was {true}")

    def heal(self) -> None:
        """The faults end: after a few checkpoint intervals the cloud equals the edge."""
        for _ in range(ROUNDS_OF_HEALING):
            self._empty_outbox()
            for device in list(self.edge.devices.values()):
                self._send_checkpoint(device)
            self._send_status()
            self.send_roster(0, 0)
            for reader in (0, 1):
                while self.positions[reader] < len(self.log):
                    self.read(reader, 5)
            self._obey()
        for session, device in self.edge.devices.items():
            row = self.rows.get(session)
            if row is None or row.stale or row.absent or row.closed is not None or content_of(row) != device.content:
                raise WrongError(f"not healed: {row}, on the edge {device.rev} {device.content}")
        for session, row in self.rows.items():
            if session not in self.edge.devices and row.closed is None and not row.absent:
                raise WrongError(f"phantom: {row}")

    # Parts of the moves.

    def _device(self, x: int) -> Device | None:
        devices = list(self.edge.devices.values())
        return devices[x % len(devices)] if devices else None

    def _value(self) -> int:
        self.values += 1
        return self.values

    def _commit(self, device: Device, patch: dict[str, int], unset: tuple[str, ...]) -> None:
        device.rev += 1
        device.content = {name: value for name, value in (device.content | patch).items() if name not in unset}
        device.history[device.rev] = device.content
        if device.session in self.edge.told:
            self._put(device.session, device.rev, patch=patch, unset=unset)
        else:
            self.edge.told.add(device.session)
            self._put(device.session, device.rev, content=dict(device.content))

    def _put(self, session: str, rev: int, **content) -> None:
        self.edge.seq += 1
        self.edge.outbox.append(Row(self.edge.seq, session, rev, **content))

    def _close(self, device: Device) -> None:
        del self.edge.devices[device.session]
        self._put(device.session, device.rev + 1)

    def _new_epoch(self, last: int) -> None:
        self.boots += 1
        self.clock_ms += BOOT_MS if self.clock_ms else 0
        self.edge.epoch = next_epoch(last, self.clock_ms, self.boots * 7919 % RANDOM_VALUES)
        self.edge.told.clear()
        if not self.rules.restamps:
            return
        for row in self.edge.outbox:
            row.epoch = None
        for session in dict.fromkeys(row.session for row in self.edge.outbox):
            if device := self.edge.devices.get(session):
                self.edge.told.add(session)
                self._put(session, device.rev, content=dict(device.content))

    def _remember(self, row: Row) -> None:
        device = self.edge.devices.get(row.session)
        if device is not None:
            self.truth[row.session, row.epoch, row.rev] = device.history[row.rev]
        elif row.content is not None:
            self.truth[row.session, row.epoch, row.rev] = row.content
        elif (before := self.truth.get((row.session, row.epoch, row.rev - 1))) is not None:
            after = before | row.patch
            self.truth[row.session, row.epoch, row.rev] = {k: v for k, v in after.items() if k not in row.unset}

    def _send_checkpoint(self, device: Device) -> None:
        self.truth[device.session, self.edge.epoch, device.rev] = device.content
        record = record_of(device.content)
        self._append(checkpoint(device.rev, record, epoch=self.edge.epoch, session=device.session))

    def _empty_outbox(self) -> None:
        for _ in range(len(self.edge.outbox)):
            self.send(3, 0)
        if self.edge.outbox:
            raise WrongError("rows of the outbox never become durable")

    def _send_status(self) -> None:
        self._append(
            Status(
                v=1,
                rae=RAE,
                session="rae",
                at=AT,
                epoch=self.edge.epoch,
                state="ready",
                run=self.boots + 1,
                seq_high=self.edge.seq,
            )
        )

    def _append(self, message, *, overtakes: bool = False) -> None:
        self.log.append(message)
        last_read = max(self.positions)
        if overtakes and len(self.log) >= last_read + 2 and self.log[-2].session != message.session:
            self.log[-2:] = [message, self.log[-2]]

    def _write(self, folds: dict) -> None:
        for session, fold in sorted(folds.items()):
            self.rows[session], verdict = self.rules.apply(self.rows.get(session), fold, rae=RAE, session=session)
            if verdict.epoch_raise is not None:
                self.raises.append(verdict.epoch_raise)
            if verdict.forget:
                self.forgets.append(session)
        folds.clear()

    def _apply_roster(self, roster: Roster) -> None:
        for session, row in self.rows.items():
            self.rows[session] = self.rules.apply_roster(row, roster)

    def _apply_status(self, status: Status) -> None:
        self.rae, verdict = self.rules.apply_status(self.rae, status, received_at=AT, retained=False)
        if verdict.epoch_raise is not None:
            self.raises.append(verdict.epoch_raise)

    def _obey(self) -> None:
        for told in self.raises:
            if self.rules.obeys_raise(self.edge.epoch, refused=told.refused, above=told.above):
                self._new_epoch(told.above)
        for session in self.forgets:
            if self.rules.obeys_forget and session in self.edge.devices:
                self._close(self.edge.devices[session])
                self.onboard(0, 0)
        self.raises.clear()
        self.forgets.clear()


def random_moves(seed: int) -> list[tuple[str, int, int]]:
    """A history of up to 50 moves that ``seed`` alone decides."""
    source = random.Random(seed)
    moves = [("onboard", 0, 0)]
    count = source.randrange(5, 50)
    moves += [(source.choice(World.MOVES), source.randrange(8), source.randrange(8)) for _ in range(count)]
    return moves


def raw(content: dict[str, int]) -> dict[str, Raw]:
    return {name: Raw(str(value).encode()) for name, value in content.items()}


def record_of(content: dict[str, int]) -> DeviceRecord:
    return DeviceRecord(attributes=raw(content))


def content_of(row: DeviceRow) -> dict[str, int]:
    return {name: int(bytes(value)) for name, value in row.record.attributes.items()}
