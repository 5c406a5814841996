"""One worker's straight way: scan a batch, recall its rows, write what may go straight, and say what is left.

The decisions are in ``scan`` and ``straight``, what is remembered in ``known``; here is their order.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from dmpd.cloud_registry import straight
from dmpd.cloud_registry.gather import Refuse
from dmpd.cloud_registry.known import Known, KnownRows
from dmpd.cloud_registry.patience import DataRefusedError, PatientDatabase
from dmpd.cloud_registry.scan import device_topic, keys_of, raes_with_rosters, scan
from dmpd.cloud_registry.settings import WorkerSettings
from dmpd.cloud_registry.straight import Planned
from dmpd.model.running import Running
from dmpd.model.topics import Topic
from dmpd.stream.handler import Output, Record

_KNOWN_BYTES_MAX: Final = 4 << 20
"""What a worker spends on remembering rows: about 3,000 of them."""


class StraightWay:
    """Owns what the worker remembers of its rows. All calls block."""

    def __init__(self, partition: int, settings: WorkerSettings, database: PatientDatabase) -> None:
        self._partition = partition
        self._settings = settings
        self._database = database
        self._known = KnownRows(_KNOWN_BYTES_MAX)
        self._connections_made = 0

    def forget(self, records: Sequence[Record]) -> None:
        """These records go the other way: their rows will not be as they were known."""
        for key in keys_of(records):
            self._known.forget(key)
        for rae in raes_with_rosters(records):
            self._known.forget_rae(rae)

    def write(self, records: Sequence[Record], refuse: Refuse, output: Output) -> Sequence[Record]:
        """Write what needs no more than the worker knows; returns the rest, of every session all its records.

        If the database was left and found again meanwhile, everything is the rest: it may be an older one, restored,
        and what was passed over as known may be news to it.
        """
        try:
            rest = self._write(records, refuse, output)
        except DataRefusedError:  # by a read
            rest = records
        before, self._connections_made = self._connections_made, self._database.connections_made
        if before in {self._connections_made, 0}:
            return rest
        self._known.clear()
        return records

    def _write(self, records: Sequence[Record], refuse: Refuse, output: Output) -> Sequence[Record]:
        topics = {key: topic for key in keys_of(records) if key is not None and (topic := device_topic(key))}
        known = self._recall(topics, output)
        runs, rest = scan(records, topics, known, refuse)
        news = {key: run for key, run in runs.items() if run.has_news}
        self._recall_content(news, known, topics, output)
        planned: list[Planned] = []
        left: set[bytes | None] = set()
        for key, run in news.items():
            row = known.get(key)
            if key not in known:
                left.add(key)
            elif row is not None and straight.changes_nothing(run, row):
                continue
            elif (one := straight.plan(key, run, row, self._partition)) is not None:
                planned.append(one)
            else:
                left.add(key)
        settings = self._settings
        for chunk in straight.chunks(
            planned, sessions_max=settings.transaction_sessions_max, bytes_max=settings.transaction_bytes_max
        ):
            left.update(self._write_planned(chunk, output))
        if not left:
            return rest
        left.update(record.key for record in rest)
        return [record for record in records if record.key in left]

    def _recall(self, topics: Mapping[bytes, Topic], output: Output) -> dict[bytes, Known | None]:
        """The rows of these sessions, from memory or read; those that only the full rules can judge are left out."""
        known: dict[bytes, Known | None] = {}
        known |= {key: row for key in topics if (row := self._known.get(key)) is not None}
        missing = {key: topic for key, topic in topics.items() if key not in known}
        if missing:
            known |= self._database.until_done(lambda connection: straight.read_known(connection, missing), output)
        return known

    def _recall_content(
        self,
        news: Mapping[bytes, Running],
        known: dict[bytes, Known | None],
        topics: Mapping[bytes, Topic],
        output: Output,
    ) -> None:
        """Read the content of rows that are to change and were known by their place only; if they moved, forget.

        That of a checkpoint's row is read although it is known: a checkpoint heals what nobody knows of, too (rows that
        were edited by hand, or are stale by another writer's doing).
        """
        read = {
            key: row
            for key, run in news.items()
            if (row := known[key]) is not None and (row.content is None or run.replace)
        }
        if read:
            found = self._database.until_done(
                lambda connection: straight.read_content(connection, read, topics), output
            )
            for key in read:
                if key in found:
                    known[key] = found[key]
                else:
                    del known[key]

    def _write_planned(self, planned: Sequence[Planned], output: Output) -> Collection[bytes]:
        """Returns the keys that are to go the other way: none, or all of them (what was written is then old news)."""
        try:
            self._database.until_done(
                lambda connection: straight.write(connection, planned, partition=self._partition), output
            )
        except (straight.NotAsKnownError, DataRefusedError):
            return [one.key for one in planned]
        for one in planned:
            self._known.put(one.key, one.known)
        return ()
