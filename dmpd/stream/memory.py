"""How large rings and batches may be under a memory limit: a container of 384 MiB shall not be killed for its backlog.

What an instance needs at most, whatever the backlog: the parent, the Kafka client's prefetch, the fork server, and per
partition of the topic (one instance may have to hold all of them) a ring, a worker, and a batch as objects, which takes
several times its bytes while it is handled. The figures are those of the Cloud Registry's handler;
``tests/integration/test_cloud_registry_memory.py`` measures them. ``docs/operations.md`` has the formula for people.
"""

import logging
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from dmpd.runtime import kafka_admin
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream.settings import MEBIBYTE, StreamSettings

PARENT_BYTES: Final = 80 * MEBIBYTE
PARENT_PARTITION_BYTES: Final = 2 * MEBIBYTE
FORK_SERVER_BYTES: Final = 24 * MEBIBYTE
WORKER_BYTES: Final = 32 * MEBIBYTE
"""Without its batch; with what it remembers of rows, and with all that it shared with the fork server at first."""
BATCH_RECORD_BYTES: Final = 6144
"""Of each record of a batch, beside its bytes."""
BATCH_TIMES: Final = 5.0
"""The bytes of a batch are so many times in memory: as they came, decoded, and as parameters of a statement."""
_BATCH_RECORDS_MIN: Final = 1000
_USABLE: Final = 0.9
"""Of the limit: the kernel counts sockets and page tables too."""
_UNLIMITED: Final = 1 << 60

_log = logging.getLogger(__name__)


class Sizes(NamedTuple):
    """Of each partition: what of ``StreamSettings`` bounds memory."""

    ring_bytes: int
    batch_records_max: int
    batch_bytes_max: int

    @property
    def cost_bytes(self) -> float:
        return self.ring_bytes + BATCH_RECORD_BYTES * self.batch_records_max + BATCH_TIMES * self.batch_bytes_max


def fit(kafka: KafkaSettings, settings: StreamSettings) -> StreamSettings:
    """``settings`` with rings and batches that fit the cgroup's memory limit; as they are, if there is none.

    A ``ring_bytes`` that is set means that somebody has counted: then everything stays. Asks Kafka for the topic's
    partitions only if there is a limit; says what it chose, and when even the smallest sizes do not fit.

    Raises:
        KafkaUnreachableError: No answer.
    """
    limit = None if settings.ring_bytes is not None else limit_bytes()
    if limit is None:
        return settings
    partitions = max(1, len(kafka_admin.list_end_offsets(kafka, settings.topic)))
    chosen, least = sizes(settings, partitions, limit), smallest(settings)
    if needed_bytes(settings, partitions, least) > limit * _USABLE:
        _log.warning(
            "the memory limit of %d MiB is too small for %d partitions: %d MiB are needed, with the smallest rings and"
            " batches",
            limit // MEBIBYTE,
            partitions,
            needed_bytes(settings, partitions, least) / _USABLE // MEBIBYTE + 1,
        )
    _log.info(
        "rings of %.1f MiB and batches of up to %d records for %d partitions, memory limit %d MiB",
        chosen.ring_bytes / MEBIBYTE,
        chosen.batch_records_max,
        partitions,
        limit // MEBIBYTE,
    )
    return replace(settings, **chosen._asdict())


def sizes(settings: StreamSettings, partitions: int, limit: int) -> Sizes:
    """The largest with which ``partitions`` fit, between ``smallest`` and ``largest``."""
    least, most = smallest(settings), largest(settings)
    left = limit * _USABLE - needed_bytes(settings, partitions, least)
    step = partitions * (most.cost_bytes - least.cost_bytes)
    part = 1.0 if left >= step else max(0.0, left / step)
    return Sizes(*(int(low + part * (high - low)) for low, high in zip(least, most, strict=True)))


def largest(settings: StreamSettings) -> Sizes:
    """Where memory is not limited. A batch is no larger than the ring that it comes from."""
    ring = settings.ring_capacity_bytes
    return Sizes(ring, settings.batch_records_max, min(settings.batch_bytes_max, ring))


def smallest(settings: StreamSettings) -> Sizes:
    """With less a record could not pass, or batches would be too narrow to be worth their transaction."""
    most = largest(settings)
    return Sizes(
        min(most.ring_bytes, 4 * settings.max_record_bytes),
        min(most.batch_records_max, _BATCH_RECORDS_MIN),
        min(most.batch_bytes_max, settings.max_record_bytes),
    )


def needed_bytes(settings: StreamSettings, partitions: int, each: Sizes) -> int:
    """What an instance with all partitions takes at most, one consume call aside."""
    fixed = PARENT_BYTES + settings.prefetch_bytes_max + FORK_SERVER_BYTES
    return int(fixed + partitions * (PARENT_PARTITION_BYTES + WORKER_BYTES + each.cost_bytes))


def limit_bytes(root: Path = Path("/")) -> int | None:
    """The smallest memory limit of this process's cgroup and those above it, v1 or v2; None = unlimited."""
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _limits(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min((one for one in found if one < _UNLIMITED), default=None)


def _limits(mount: Path, path: str, name: str) -> list[int]:
    """Of the group and all above it that can be seen: in a container the mount itself is the group."""
    group = mount / path.lstrip("/")
    folders = [group, *(one for one in group.parents if one.is_relative_to(mount))]
    texts = [text for folder in folders for text in _lines(folder / name)]
    return [int(text) for text in texts if text.isdigit()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
