"""A handler whose records say what happens to its process; notes the rest as ``stream_handlers.Note`` does."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from tests.support.stream_handlers import Journal


class Harm:
    """Values: ``raise``, ``exit 3``, ``leave`` (SystemExit), ``SIGSEGV`` and other signals, ``flaky``
    (raises while a file of that name exists), ``child`` (leaves one behind that lives while the file ``child`` exists),
    ``keep 8`` (as many MiB, touched). Any other is noted.

    While the file ``block`` exists it waits for its sink, saying so. Not made while ``unmade`` exists.
    """

    def __init__(self, partition, argument):
        self.folder = Path(json.loads(argument)["folder"])
        if (self.folder / "unmade").exists():
            raise RuntimeError("cannot be made")
        self.journal = Journal(self.folder, partition)
        self.kept = []

    def handle(self, records, output):
        while (self.folder / "block").exists():
            output.waiting_sink()
            time.sleep(0.01)
        for record in records:
            if record.value == b"flaky" and (self.folder / "flaky").exists():
                raise RuntimeError("for a while")
            if record.value.startswith(b"keep"):
                self.kept.append(b"x" * (int(record.value.split()[1]) << 20))
            if record.value == b"child":
                leave_a_child(self.folder / "child")
            provoke(record.value.decode())
        self.journal.write("".join(f"{record.offset}\n" for record in records))

    def close(self):
        return


def leave_a_child(lives):
    if os.fork() == 0:
        while lives.exists():
            time.sleep(0.05)
    os._exit(3)


def provoke(value):
    if value == "raise":
        raise RuntimeError("as asked")
    if value == "leave":
        sys.exit(4)
    if value.startswith("exit"):
        os._exit(int(value.split()[1]))
    if value.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[value])


def make(partition, argument):
    return Harm(partition, argument)
