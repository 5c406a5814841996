"""The stale device sessions of some partitions, page by page in key order, each by the index of stale rows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, LiteralString

from dmpd.cloud_registry.reconcile import Cursor, StaleRow
from dmpd.model.rae import is_reachable
from dmpd.runtime.database import Connection

PAGE: Final[LiteralString] = """
SELECT s.kafka_partition, s.rae, s.session::text, r.state, r.heard_at
FROM device_session AS s
LEFT JOIN rae AS r ON r.rae = s.rae
WHERE s.stale AND s.closed_at IS NULL AND s.absent_at IS NULL AND s.kafka_partition = ANY(%s::integer[])
    AND (s.kafka_partition, s.rae, s.session) > (%s::integer, %s::text, %s::text::uuid)
ORDER BY s.kafka_partition, s.rae, s.session
LIMIT %s
"""

COUNT: Final[LiteralString] = """
SELECT count(*) FROM device_session
WHERE stale AND closed_at IS NULL AND absent_at IS NULL AND kafka_partition = ANY(%s::integer[])
"""


def read_page(
    connection: Connection, partitions: Sequence[int], *, after: Cursor, rows_max: int, now: datetime
) -> list[StaleRow]:
    """Up to ``rows_max`` rows behind ``after``. A plain read."""
    found = connection.execute(PAGE, (list(partitions), *after, rows_max))
    return [
        StaleRow(partition, rae, session, state is None or is_reachable(state, heard_at, now))
        for partition, rae, session, state, heard_at in found
    ]


def count(connection: Connection, partitions: Sequence[int]) -> int:
    """How many there are."""
    row = connection.execute(COUNT, (list(partitions),)).fetchone()
    assert row is not None
    return int(row[0])
