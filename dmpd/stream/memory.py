"""How large the rings may be under a memory limit: a container of 384 MiB shall not be killed for its backlog.

What an instance needs at most, whatever the backlog: the parent, the Kafka client's prefetch, and per partition of the
topic (one instance may have to hold all of them) a ring and a worker. Measured: ``docs/operations.md``.
"""

import logging
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dmpd.runtime import kafka_admin
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream.settings import MEBIBYTE, RING_BYTES, StreamSettings

PARENT_BYTES: Final = 80 * MEBIBYTE
PARENT_PARTITION_BYTES: Final = 2 * MEBIBYTE
WORKER_BYTES: Final = 12 * MEBIBYTE
_USABLE: Final = 0.9
"""Of the limit: the kernel counts sockets and page tables too."""
_UNLIMITED: Final = 1 << 60

_log = logging.getLogger(__name__)


def fit(kafka: KafkaSettings, settings: StreamSettings) -> StreamSettings:
    """``settings`` with rings that fit the cgroup's memory limit; as they are, if they say or there is none.

    Asks Kafka for the topic's partitions only if there is a limit; says what it chose, and when even the smallest rings
    do not fit.

    Raises:
        KafkaUnreachableError: No answer.
    """
    limit = None if settings.ring_bytes is not None else limit_bytes()
    if limit is None:
        return settings
    partitions = max(1, len(kafka_admin.list_end_offsets(kafka, settings.topic)))
    ring = ring_bytes(settings, partitions, limit)
    least = 4 * settings.max_record_bytes
    if ring < least:
        _log.warning(
            "the memory limit of %d MiB is too small for %d partitions: %d MiB are needed, with the smallest rings",
            limit // MEBIBYTE,
            partitions,
            needed_bytes(settings, partitions, least) // MEBIBYTE,
        )
    ring = max(ring, least)
    _log.info(
        "rings of %.1f MiB for %d partitions, memory limit %d MiB", ring / MEBIBYTE, partitions, limit // MEBIBYTE
    )
    return replace(settings, ring_bytes=ring)


def ring_bytes(settings: StreamSettings, partitions: int, limit: int) -> int:
    """The ring's capacity at which ``partitions`` of them fit; at most the default, maybe less than is usable."""
    left = int(limit * _USABLE) - needed_bytes(settings, partitions, 0)
    return min(RING_BYTES, left // partitions)


def needed_bytes(settings: StreamSettings, partitions: int, ring: int) -> int:
    """What an instance with all partitions takes at most, one consume call aside."""
    each = PARENT_PARTITION_BYTES + WORKER_BYTES + ring
    return PARENT_BYTES + settings.prefetch_bytes_max + partitions * each


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
