"""One worker's straight way: scan a batch, recall its rows, write what may go straight, and say what is left.

The decisions are in ``scan`` and ``straight``, what is remembered in ``known``; here is their order.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from dmpd.cloud_registry import straight, unread
from dmpd.cloud_registry.gather import Refuse
from dmpd.cloud_registry.known import Known, KnownRows
from dmpd.cloud_registry.patience import DataRefusedError, PatientDatabase
from dmpd.cloud_registry.scan import device_topic, keys_of, raes_with_rosters, scan
from dmpd.cloud_registry.settings import WorkerSettings
from dmpd.cloud_registry.straight import Planned
from dmpd.cloud_registry.width import Width
from dmpd.model.running import Running
from dmpd.model.topics import Topic
from dmpd.stream.handler import Output, Record

_FEW: Final = 200
"""So many rows are read whole before it is known whether they are to change: one answer of the database, not two."""
_LIVE_RECORDS: Final = 64
"""Batches up to this are written before anything is read, where that may be: records that come as they are made are
news. Of a backlog many are old, and wide folds are what makes it quick."""
_CHECKPOINT: Final = b'"checkpoint"'
"""In a payload: its row is to be read whatever else there is to do. A guess, which saves folding in vain."""
_PIECES: Final = 8
"""With two the database would do nearly all of the work twice in the end, with more it gets more statements."""
_KNOWN_BYTES_MAX: Final = 4 << 20
"""What a worker spends on remembering rows: about 3,000 of them."""


class StraightWay:
    """Owns what the worker remembers of its rows. All calls block."""

    def __init__(self, partition: int, settings: WorkerSettings, database: PatientDatabase) -> None:
        self._partition = partition
        self._settings = settings
        self._database = database
        self._known = KnownRows(_KNOWN_BYTES_MAX)
        self._width = Width(settings.transaction_sessions_max)
        self._connections_made = 0
        self.keys_written = 0
        """In the last batch, whichever way they went."""

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
        keys = keys_of(records)
        self.keys_written = len(keys)
        topics = {key: topic for key in keys if key is not None and (topic := device_topic(key))}
        if self._is_live(records) and (ahead := self._write_unread(records, topics, refuse, output)):
            topics = {key: topic for key, topic in topics.items() if key not in ahead}
            records = [record for record in records if record.key not in ahead]
            if not records:
                return records
        known, read = self._recall(topics, output)
        runs, rest = scan(records, topics, known, refuse)
        news = {key: run for key, run in runs.items() if run.has_news}
        self._recall_content(news, known, topics, read, output)
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
        bytes_max, done = self._settings.transaction_bytes_max, 0
        while done < len(planned):
            wide = planned[done : done + self._width.sessions]
            chunk = next(iter(straight.chunks(wide, sessions_max=len(wide), bytes_max=bytes_max)))
            left.update(self._write_planned(chunk, output))
            done += len(chunk)
        if not left:
            return rest
        left.update(record.key for record in rest)
        return [record for record in records if record.key in left]

    def _is_live(self, records: Sequence[Record]) -> bool:
        return (
            len(records) <= _LIVE_RECORDS
            and sum(len(record.value or b"") for record in records) <= self._settings.transaction_bytes_max
        )

    def _write_unread(
        self, records: Sequence[Record], topics: Mapping[bytes, Topic], refuse: Refuse, output: Output
    ) -> Collection[bytes]:
        """Write what goes on from rows that are not remembered; returns the keys that are done.

        With them what goes on from remembered ones: one statement costs less than two.
        """
        read = {record.key for record in records if record.value is not None and _CHECKPOINT in record.value}
        asked = {key: topic for key, topic in topics.items() if key not in read}
        if all(key in self._known for key in asked):
            return ()
        # A roster among what is read stays: nothing of its RAE may go ahead of it.
        tried = [record for record in records if record.key in asked or record.key not in topics]
        found, _ = scan(tried, asked, dict.fromkeys(asked), refuse)
        runs = {key: run for key, run in found.items() if unread.may_go(run)}
        if all(key in self._known for key in runs):
            return ()
        for key in runs:
            self._known.forget(key)
        try:
            return self._database.until_done(
                lambda connection: unread.write(connection, runs, partition=self._partition), output
            )
        except DataRefusedError:  # one of them is to blame: which one is found the other way
            return ()

    def _recall(
        self, topics: Mapping[bytes, Topic], output: Output
    ) -> tuple[dict[bytes, Known | None], Collection[bytes]]:
        """The rows of these sessions, from memory or read; those that only the full rules can judge are left out.

        Also the keys that were read with their content. Of many it is not, because most may turn out to be old news.
        """
        known: dict[bytes, Known | None] = {}
        known |= {key: row for key in topics if (row := self._known.get(key)) is not None}
        missing = {key: topic for key, topic in topics.items() if key not in known}
        if not missing:
            return known, ()
        is_few = len(missing) <= _FEW
        read = straight.read_whole if is_few else straight.read_known
        known |= self._database.until_done(lambda connection: read(connection, missing), output)
        return known, missing.keys() if is_few else ()

    def _recall_content(
        self,
        news: Mapping[bytes, Running],
        known: dict[bytes, Known | None],
        topics: Mapping[bytes, Topic],
        just_read: Collection[bytes],
        output: Output,
    ) -> None:
        """Read the content of rows that are to change and were known by their place only; if they moved, forget.

        That of a checkpoint's row is read although it is known: a checkpoint heals what nobody knows of, too (rows that
        were edited by hand, or are stale by another writer's doing).
        """
        read = {
            key: row
            for key, run in news.items()
            if (row := known[key]) is not None and (row.content is None or run.replace) and key not in just_read
        }
        if read:
            asked = {key: topics[key] for key in read}
            found = self._database.until_done(lambda connection: straight.read_whole(connection, asked), output)
            for key, before in read.items():
                now = found.get(key)
                if now is not None and msgspec.structs.replace(now, content=before.content) == before:
                    known[key] = now
                else:
                    del known[key]

    def _write_planned(self, planned: Sequence[Planned], output: Output) -> Collection[bytes]:
        """Returns the keys that are to go the other way: those of rows that are not as known, and of what is refused.

        What is refused is cut up, so that one bad row in a thousand sends only itself the other, slower way.
        """
        try:
            self._database.until_done(
                lambda connection: straight.write(connection, planned, partition=self._partition), output
            )
        except straight.NotAsKnownError:  # some; what was written is old news there
            return [one.key for one in planned]
        except DataRefusedError:
            if len(planned) == 1:
                return [planned[0].key]
            self._width.refused(len(planned))
            width = -(-len(planned) // _PIECES)
            pieces = [planned[first : first + width] for first in range(0, len(planned), width)]
            return {key for piece in pieces for key in self._write_planned(piece, output)}
        self._width.written(len(planned))
        for one in planned:
            self._known.put(one.key, one.known)
        return ()
