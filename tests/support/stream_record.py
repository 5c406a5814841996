"""A handler that records what it handled, one file per worker life, and the reader of those files.

A line: partition, offset, the record's key, its number within that key, the time (monotonic: one clock for all
processes of the machine). Files are named after the instance, the partition and the worker's pid.
"""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

HANDLER = "tests.support.stream_record:record"


class Handled(NamedTuple):
    """One record that a worker handled."""

    life: str
    partition: int
    offset: int
    key: str
    nth: int
    """The value: which record of its key it is."""
    at_s: float


class Recorder:
    """Argument: ``folder``, ``instance``. ``record_s``: how long each record takes.

    A file ``dead``, or ``dead-`` and the instance, makes the sink dead: it says so for ever and handles nothing.
    ``hung`` makes it hang without a word.
    """

    def __init__(self, partition, argument):
        options = json.loads(argument)
        self._folder = Path(options["folder"])
        self._dead = [self._folder / "dead", self._folder / f"dead-{options['instance']}"]
        self._record_s = options.get("record_s", 0.0)
        self._partition = partition
        name = f"{options['instance']}-{partition}-{os.getpid()}.life"
        self._fd = os.open(self._folder / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def handle(self, records, output):
        while any(path.exists() for path in self._dead):
            output.waiting_sink()
            time.sleep(0.05)
        while (self._folder / "hung").exists():
            time.sleep(0.05)
        time.sleep(self._record_s * len(records))
        at_s = time.monotonic()
        lines = (f"{self._partition} {r.offset} {r.key.decode()} {int(r.value)} {at_s:.4f}\n" for r in records)
        os.write(self._fd, "".join(lines).encode())

    def close(self):
        os.close(self._fd)


def record(partition, argument):
    return Recorder(partition, argument)


def read_lives(folder):
    """All that was recorded so far, oldest first."""
    found = []
    for path in Path(folder).glob("*.life"):
        for line in path.read_text().splitlines():
            partition, offset, key, nth, at_s = line.split()
            found.append(Handled(path.stem, int(partition), int(offset), key, int(nth), float(at_s)))
    return sorted(found, key=lambda one: (one.at_s, one.partition, one.offset))
