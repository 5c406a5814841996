"""RAEs that keep every row until it is ``durable``, and the check that Kafka has them all, in order.

A publisher here follows the contract of an outbox (go-back-N on a new connection and when the first unstored row is
overdue, one row alone until the broker shows that the bridge's session is there) with a store in memory.
"""

import asyncio
import itertools
import time
import uuid

import msgspec

from dmpd.model.apply import DeviceRow, apply_message
from dmpd.model.codec import decode_record
from dmpd.model.messages import Change, Checkpoint, Durable
from dmpd.model.topics import ack_topic, info_topic
from dmpd.runtime.mqtt import Message, MqttClient, MqttRefusedError, MqttUnreachableError
from dmpd.runtime.settings import MqttSettings

ROWS_UNSTORED_MAX = 64
IN_FLIGHT_MAX = 20
OVERDUE_S = 4.0
NO_SUBSCRIBER = 0x10


class Publisher:
    """One RAE: ``rows`` changes over ``sessions`` device sessions, and those of ``commit``; sent until durable."""

    def __init__(
        self,
        rae: str,
        settings: MqttSettings,
        *,
        rows: int,
        sessions: int = 3,
        committing: bool = False,
        connect=MqttClient.connect,
    ) -> None:
        self.rae = rae
        self._connect = connect
        self._settings = settings
        self._sessions = [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{rae}-{n}")) for n in range(sessions)]
        self.epoch = 1_750_000_000_000
        self.rows: dict[int, tuple[str, bytes]] = {}
        """What was committed, by ``seq``: topic and payload."""
        self._unstored: dict[int, tuple[str, bytes]] = {}
        self._revs = dict.fromkeys(self._sessions, 0)
        for _ in range(rows):
            self.commit()
        self.committing = committing
        """While true more rows may come, and ``run`` goes on."""
        self._sent_s: dict[int, float] = {}
        self._in_flight: dict[int, int] = {}
        """The row of each message without an answer yet, by its mid."""
        self.acknowledged: set[int] = set()
        """Rows that the broker has answered with success at least once."""
        self._alone = True
        self._client = None
        self._moved = asyncio.Event()

    def commit(self) -> None:
        """One more change, as if on disk from now on; the first row of a session is its checkpoint."""
        session = self._sessions[len(self.rows) % len(self._sessions)]
        self._revs[session] += 1
        if self._revs[session] == 1:
            self.commit_checkpoint(session)
        else:
            self._put(session, "change", set={"name": self._name(session)})

    def commit_checkpoint(self, session: str) -> None:
        """What the Cloud Registry asks for when it misses something."""
        self._put(session, "checkpoint", record={"name": self._name(session)})

    def _name(self, session: str) -> str:
        return f"as of {self._revs[session]}"

    def _put(self, session: str, kind: str, **fields: object) -> None:
        seq = len(self.rows) + 1
        body = {
            "v": 1,
            "kind": kind,
            "rae": self.rae,
            "session": session,
            "at": "2026-01-01T00:00:00.000Z",
            "epoch": self.epoch,
            "rev": self._revs[session],
            "seq": seq,
        }
        self.rows[seq] = self._unstored[seq] = info_topic(self.rae, session), msgspec.json.encode(body | fields)

    def is_last(self, row: DeviceRow) -> bool:
        """Whether a row of the database says what was committed last."""
        return (row.rev, row.record.name) == (self._revs[row.session], self._name(row.session))

    @property
    def unstored(self) -> int:
        return len(self._unstored)

    async def run(self) -> None:
        """Until every row is durable."""
        while self._unstored or self.committing:
            try:
                self._client = await self._connect(
                    self._settings,
                    client_id=self.rae,
                    clean_start=True,
                    session_expiry_s=0,
                    will=None,
                    on_message=self._on_message,
                    on_puback=self._on_puback,
                    receive_maximum=100,
                )
            except (MqttRefusedError, MqttUnreachableError):
                await asyncio.sleep(0.1)
                continue
            await self._serve(self._client)
            self._client.abort()

    async def _serve(self, client) -> None:
        self._sent_s.clear()
        self._in_flight.clear()
        self._alone = True
        try:
            await client.subscribe([ack_topic(self.rae)])
        except MqttUnreachableError:
            return
        while (self._unstored or self.committing) and not client.closed.done():
            first_sent_s = self._sent_s.get(next(iter(self._unstored), 0), float("inf"))
            if time.monotonic() - first_sent_s > OVERDUE_S:
                self._sent_s.clear()
            self._pump(client)
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), 0.1)
            except TimeoutError:
                continue

    def _pump(self, client) -> None:
        most = min(IN_FLIGHT_MAX, client.server_receive_maximum)
        window = list(itertools.islice(self._unstored, ROWS_UNSTORED_MAX))
        for seq in window:
            if client.closed.done() or len(self._in_flight) >= (1 if self._alone else most):
                return
            if seq not in self._sent_s:
                topic, payload = self._unstored[seq]
                self._sent_s[seq] = time.monotonic()
                self._in_flight[client.publish(topic, payload, qos=1)] = seq

    def _on_puback(self, mid: int, reason_code: int) -> None:
        seq = self._in_flight.pop(mid, None)
        if seq is not None and reason_code == 0:
            self.acknowledged.add(seq)
        self._alone = reason_code == NO_SUBSCRIBER
        if self._alone:
            self._sent_s.clear()  # nobody has it: from the first unstored row again
        self._moved.set()

    def _on_message(self, message: Message) -> None:
        ack = msgspec.json.decode(message.payload, type=Durable)
        assert ack.rae == self.rae
        if ack.epoch == self.epoch:
            for first, last in ack.stored:
                for seq in range(first, last + 1):
                    self._unstored.pop(seq, None)
        self._moved.set()


Records = list[tuple[bytes, bytes]]
"""Keys and values from Kafka, each partition in its order."""


def problems(publishers: list[Publisher], records: Records) -> list[str]:
    """What Kafka's records lack, invent or reorder; empty = all is well."""
    found, reordered = _lost_or_invented(publishers, records)
    return found + [f"{key.decode()}: first occurrences out of order" for key in reordered]


def unseen(publishers: list[Publisher], records: Records) -> tuple[list[str], list[DeviceRow]]:
    """As ``problems``, but a gap is none if the Cloud Registry saw it; and the rows that are stale for it.

    Of every other row it is a problem not to say what was committed last.
    """
    found, reordered = _lost_or_invented(publishers, records)
    rows, gaps = _rows(records)
    found += [f"{key.decode()}: out of order, and nobody saw it" for key in reordered if key not in gaps]
    by_rae = {publisher.rae: publisher for publisher in publishers}
    found += [f"{row}: wrong" for row in rows.values() if not row.stale and not by_rae[row.rae].is_last(row)]
    return found, [row for row in rows.values() if row.stale]


def _rows(records: Records) -> tuple[dict[bytes, DeviceRow], set[bytes]]:
    """The database after these records, by the model's own rules, and the keys that ever were stale."""
    rows: dict[bytes, DeviceRow] = {}
    gaps: set[bytes] = set()
    for key, value in records:
        _, message = decode_record(key, value)
        assert isinstance(message, Change | Checkpoint)
        row, _ = apply_message(rows.get(key), message)
        assert row is not None
        rows[key] = row
        if row.stale:
            gaps.add(key)
    return rows, gaps


def _lost_or_invented(publishers: list[Publisher], records: Records) -> tuple[list[str], list[bytes]]:
    """Sentences about keys with rows that are missing or nobody's, and the keys that are whole but out of order."""
    expected: dict[bytes, list[bytes]] = {}
    for publisher in publishers:
        for topic, payload in publisher.rows.values():
            expected.setdefault(topic.encode(), []).append(payload)
    seen: dict[bytes, dict[bytes, None]] = {}
    for key, value in records:
        seen.setdefault(key, {}).setdefault(value)
    found: list[str] = []
    reordered: list[bytes] = []
    for key in sorted(expected.keys() | seen.keys()):
        wanted, firsts = expected.get(key, []), list(seen.get(key, {}))
        lost, invented = set(wanted) - set(firsts), set(firsts) - set(wanted)
        if lost:
            found.append(f"{key.decode()}: {len(lost)} lost")
        if invented:
            found.append(f"{key.decode()}: {len(invented)} invented")
        if not lost and not invented and firsts != wanted:
            reordered.append(key)
    return found, reordered
