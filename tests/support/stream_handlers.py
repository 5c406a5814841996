"""Handlers for tests of the stream. Each notes what it did in a file per partition, by whole lines and O_APPEND.

The argument is JSON: ``folder``, and what the handler should do wrong.
"""

import json
import os
import signal
import time
import zlib
from pathlib import Path


class Journal:
    """One line per record that was handled, in order: its offset; in another file how many of each batch."""

    def __init__(self, folder, partition, kind="journal"):
        self._fd = os.open(Path(folder) / f"{partition}.{kind}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, text):
        os.write(self._fd, text.encode())


class Note:
    """Notes offsets.

    ``invalid``: values it gives up; ``invalid_headers_of``: one, with the names of its headers. ``slow_s``: per batch.
    A file ``block``, or ``block`` and its partition, blocks it; ``hang`` does, and keeps it silent.

    ``die_at``, ``hang_at``, ``corrupt_once``: value at which it kills itself, hangs, or breaks the ring and dies;
    ``spoil_once``: breaks it and goes on.
    ``die_once``: value at which it kills itself, once per folder. ``raise_at``: value at which it raises while the file
    ``raise`` exists. ``emit``: topic that gets each value again. ``contents``: each record's bytes are noted too, as a
    number of its offset and a checksum.
    """

    def __init__(self, partition, argument):
        self.options = json.loads(argument)
        self.folder = Path(self.options["folder"])
        self.journal = Journal(self.folder, partition)
        self.batches = Journal(self.folder, partition, "batches")
        self.contents = Journal(self.folder, partition, "contents") if self.options.get("contents") else None
        self.partition = partition

    def handle(self, records, output):
        time.sleep(self.options.get("slow_s", 0))
        while (self.folder / "block").exists() or (self.folder / f"block{self.partition}").exists():
            output.waiting_sink("the sink is blocked", halted=(self.folder / "needs-person").exists())
            time.sleep(0.02)
        while (self.folder / "hang").exists():
            time.sleep(0.02)
        for record in records:
            self._provoke(record, output)
        self.journal.write("".join(f"{record.offset}\n" for record in records))
        self.batches.write(f"{len(records)}\n")
        if self.contents is not None:
            self.contents.write("".join(f"{content(record.offset, record.key, record.value)}\n" for record in records))

    def _provoke(self, record, output):
        value = (record.value or b"").decode()
        if value in self.options.get("invalid", ()):
            output.invalid(record, "bad", "it says so")
        if value == self.options.get("invalid_headers_of"):
            output.invalid(record, "bad", " ".join(name for name, _ in record.headers))
        if value == self.options.get("die_once"):
            try:
                (self.folder / "died").touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)
        if value == self.options.get("raise_at") and (self.folder / "raise").exists():
            raise RuntimeError("as asked")
        if value == self.options.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if value == self.options.get("hang_at"):
            while True:
                time.sleep(1)
        if value == self.options.get("corrupt_once") and self._corrupts_once():
            os.kill(os.getpid(), signal.SIGKILL)
        if value == self.options.get("spoil_once"):
            self._corrupts_once()
        if "emit" in self.options:
            output.emit(self.options["emit"], record.key or b"", record.value or b"")

    def _corrupts_once(self):
        """Overwrite the whole ring, as no worker could by mistake; returns whether it did, now."""
        try:
            (self.folder / "corrupted").touch(exist_ok=False)
        except FileExistsError:
            return False
        for entry in Path("/proc/self/fd").iterdir():
            try:
                if "dmpd-ring" in str(entry.readlink()):
                    os.pwrite(int(entry.name), b"\x01" * entry.stat().st_size, 0)
            except FileNotFoundError:
                continue
        return True

    def close(self):
        (self.folder / f"{self.partition}.closed").touch()


def content(offset, key, value):
    """A number that tells the offset and the bytes."""
    return offset << 32 | zlib.crc32(value or b"", zlib.crc32(key or b""))


def first_word(key):
    """A source: what stands before the first ``/`` of the key."""
    return (key or b"").partition(b"/")[0]


def note(partition, argument):
    return Note(partition, argument)


def handled(folder, partition, kind="journal"):
    """Offsets in the order in which they were handled, repeats included; of ``batches`` their records."""
    path = Path(folder) / f"{partition}.{kind}"
    return [int(line) for line in path.read_text().split()] if path.exists() else []
