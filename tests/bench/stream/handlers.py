"""Handlers of the benchmarks. The argument is JSON: ``counters`` (a file), and what each says of itself."""

import json
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmpd.stream.handler import Output, Record
from tests.bench.stream.counters import Counters


class Swallow:
    """Counts records and forgets them: what remains is the stream's own cost."""

    def __init__(self, partition: int, options: dict[str, Any]) -> None:
        self.partition = partition
        self.options = options
        self.counters = Counters(Path(options["counters"]))

    def handle(self, records: Sequence[Record], output: Output) -> None:
        now_ns = time.monotonic_ns()
        self.counters.begin(self.partition, now_ns)
        self.work(records, output)
        self.counters.add(self.partition, len(records), self.size_bytes(records), time.monotonic_ns())

    def work(self, records: Sequence[Record], output: Output) -> None:
        return

    def size_bytes(self, records: Sequence[Record]) -> int:
        return 0

    def close(self) -> None:
        self.counters.close()


def swallow(partition: int, argument: bytes) -> Swallow:
    return Swallow(partition, json.loads(argument))


class Stamp(Swallow):
    """Keeps, of each record, when it was produced (its value begins with that) and how long ago that was.

    As little as can be while records come: what it costs is measured with the rest.
    """

    def __init__(self, partition: int, options: dict[str, Any]) -> None:
        super().__init__(partition, options)
        self.seen: list[tuple[bytes | None, int]] = []

    def handle(self, records: Sequence[Record], output: Output) -> None:
        now_ns = time.monotonic_ns()
        self.seen += [(record.value, now_ns) for record in records]
        self.counters.count(self.partition, len(records))

    def close(self) -> None:
        stamps = array("Q")
        for value, now_ns in self.seen:
            made_ns = int.from_bytes((value or b"")[:8], "little")
            stamps.extend((made_ns, now_ns - made_ns))
        Path(f"{self.options['counters']}.{self.partition}").write_bytes(stamps.tobytes())
        super().close()


def stamp(partition: int, argument: bytes) -> Stamp:
    return Stamp(partition, json.loads(argument))


class Throttle(Swallow):
    """A sink of ``per_s`` records per second and partition: each batch takes as long as it is wide."""

    def work(self, records: Sequence[Record], output: Output) -> None:
        time.sleep(len(records) / self.options["per_s"])

    def size_bytes(self, records: Sequence[Record]) -> int:
        return sum(len(record.key or b"") + len(record.value or b"") for record in records)


def throttle(partition: int, argument: bytes) -> Throttle:
    return Throttle(partition, json.loads(argument))


class Stall(Swallow):
    """A sink that never answers again after ``after`` records (0 if absent) of each partition in ``stalled``."""

    def work(self, records: Sequence[Record], output: Output) -> None:
        stalls = self.partition in self.options["stalled"]
        while stalls and self.counters.counts()[self.partition] >= self.options.get("after", 0):
            output.waiting_sink()
            time.sleep(1)


def stall(partition: int, argument: bytes) -> Stall:
    return Stall(partition, json.loads(argument))
