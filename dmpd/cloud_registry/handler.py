"""What the stream runs in each worker: records of one partition in, rows out.

The database may be away for any time: the batch is tried again for ever, and meanwhile the ring fills and the partition
is paused. Only an error that names the data as its cause takes the batch apart, down to the one record to blame.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import msgspec

from dmpd.cloud_registry import reader, sink
from dmpd.cloud_registry.asks import Asks, Teller
from dmpd.cloud_registry.decide import TooManyAtOnceError
from dmpd.cloud_registry.gather import Refuse, Unit, chunks, gather
from dmpd.cloud_registry.patience import DataRefusedError, PatientDatabase
from dmpd.cloud_registry.settings import WorkerSettings
from dmpd.cloud_registry.straight_way import StraightWay
from dmpd.runtime.database import Connection
from dmpd.runtime.log import log_fields
from dmpd.stream.handler import Handler, Output, Record

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


def make(partition: int, argument: bytes) -> Handler:
    """The stream's factory: ``argument`` is a ``WorkerSettings`` as JSON. Connects at the first batch, not here."""
    return CloudRegistryHandler(partition, msgspec.json.decode(argument, type=WorkerSettings))


_WIDE_BYTES: Final = 16 << 20
"""The more updates of a session fall into one batch, the fewer rows are written for each."""
_ENOUGH_BYTES: Final = 2 << 20
_ENOUGH_PER_KEY: Final = 200
"""With so many updates of each, rows are not what costs: then the ring rather fills while the worker folds."""
_FEW_ROWS: Final = 8
"""Whatever they hold, so many may be in memory together."""
_JUDGED_RECORDS: Final = 1000
"""A smaller batch says nothing of that."""


class CloudRegistryHandler:
    """Owns the worker's way to the database."""

    def __init__(
        self, partition: int, settings: WorkerSettings, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.batch_bytes_wanted = _WIDE_BYTES
        """Of the stream: how much is to come at once."""
        self._partition = partition
        self._settings = settings
        self._database = PatientDatabase(partition, settings, sleep=sleep)
        self._straight = StraightWay(partition, settings, self._database)
        self._teller = Teller(random=random.random, new_id=lambda: uuid.uuid4().hex)

    def handle(self, records: Sequence[Record], output: Output) -> None:
        """See ``dmpd.stream.handler.Handler``. On return every record is committed in the database, or invalid."""
        refused: set[int] = set()

        def refuse(record: Record, reason: str, detail: str) -> None:
            if record.offset not in refused:  # a roster stands in several units
                refused.add(record.offset)
                output.invalid(record, reason, detail)

        asks = Asks()
        rest = self._straight.write(records, refuse, output)
        if len(records) >= _JUDGED_RECORDS:
            is_enough = len(records) >= _ENOUGH_PER_KEY * self._straight.keys_written
            self.batch_bytes_wanted = _ENOUGH_BYTES if is_enough else _WIDE_BYTES
        if rest:
            self._straight.forget(rest)
            self._judge(rest, refuse, output, asks)
        for said in self._teller.due(asks, now_s=time.monotonic(), at=datetime.now(UTC)):
            output.emit(self._settings.cmd_topic, said.key, said.value)

    def close(self) -> None:
        self._database.close()

    def _judge(self, records: Sequence[Record], refuse: Refuse, output: Output, asks: Asks) -> None:
        """The full rules: every row is read and, under its lock, read again; one unit for each session."""
        units = gather(
            records,
            refuse,
            lambda rosters: self._read(
                lambda connection: sink.find_phantoms(connection, rosters), output, {}, is_single=True
            ),
        )
        settings, row_bytes = self._settings, self._row_bytes(units, output)

        def cut(units: Sequence[Unit], sessions_max: int) -> Iterable[Sequence[Unit]]:
            """The rows of each are in memory together."""
            return chunks(
                units, sessions_max=sessions_max, bytes_max=settings.transaction_bytes_max, row_bytes=row_bytes
            )

        news: list[Unit] = []
        for chunk in cut(units, len(units)):
            news += self._read(partial(sink.leave_out_old, units=chunk, asks=asks), output, list(chunk))
        for chunk in cut(news, settings.transaction_sessions_max):
            self._write(chunk, refuse, output, asks)

    def _row_bytes(self, units: Sequence[Unit], output: Output) -> Mapping[tuple[str, str], int]:
        """How large the rows are that ``units`` are about; of few it does not matter."""
        keys = [unit.key for unit in units if not unit.is_rae]
        if len(keys) <= _FEW_ROWS:
            return {}
        return self._read(lambda connection: reader.content_bytes(connection, keys), output, {})

    def _write(self, units: Sequence[Unit], refuse: Refuse, output: Output, asks: Asks) -> None:
        """Write all of ``units``; what the database refuses is halved, by units and then by steps, in order."""
        try:
            refusals = self._until_done(
                lambda connection: sink.write(connection, units, partition=self._partition, asks=asks),
                output,
                is_single=len(units) == 1 and len(units[0].steps) == 1,
            )
        except (DataRefusedError, TooManyAtOnceError) as error:
            if len(units) > 1:
                middle = len(units) // 2
                self._write(units[:middle], refuse, output, asks)
                self._write(units[middle:], refuse, output, asks)
            elif len(units[0].steps) > 1:
                for half in units[0].halves():
                    self._write([half], refuse, output, asks)
            else:
                refuse(units[0].steps[0].record, "refused", str(error))
        else:
            for record, detail in refusals:
                refuse(record, "refused", detail)

    def _read(self, work: Callable[[Connection], _T], output: Output, otherwise: _T, *, is_single: bool = False) -> _T:
        """What ``work`` reads; ``otherwise`` if the database refuses or is too slow.

        ``is_single``: nothing else says the same, so a slow database is waited for; else ``otherwise`` is only slower.
        """
        try:
            return self._until_done(work, output, is_single=is_single)
        except DataRefusedError as error:
            _log.warning("a read is left out: %s", error, extra=log_fields(partition=self._partition))
            return otherwise

    def _until_done(self, work: Callable[[Connection], _T], output: Output, *, is_single: bool = False) -> _T:
        return self._database.until_done(work, output, is_single=is_single)
