"""``python -m tests.support.batch_memory RECORDS VALUE_BYTES TURNS``: what batches take in a worker, as JSON on stdout.

On stdin the handler's argument. Each turn is the next revision of the same ``RECORDS`` device sessions, one each: the
dearest batch, for nothing folds. Imports only what a worker has, for its memory is what is asked for.
"""

import json
import random
import sys
from pathlib import Path

from msgspec import Raw

from dmpd.cloud_registry.handler import make
from dmpd.model.codec import encode
from dmpd.model.record import DeviceRecord
from dmpd.model.topics import info_topic
from dmpd.stream.handler import Record
from tests.support.messages import RAE, checkpoint, session_id


class Output:
    def invalid(self, record, reason, detail=""):
        raise AssertionError(f"{reason}: {detail}")

    def emit(self, topic, key, value):
        pass

    def waiting_sink(self, detail="", *, halted=False):
        pass


def batch(records, value_bytes, turn):
    found = []
    for number in range(records):
        text = random.Random(number).randbytes(value_bytes // 2).hex()
        attributes = {f"a{place}": Raw(str(turn + number).encode()) for place in range(6)} | {
            "text": Raw(b'"%s"' % text.encode())
        }
        record = DeviceRecord(esn=f"PREFIX-{number}", manufacturer="Acme", model="TV 3000", attributes=attributes)
        message = checkpoint(turn + 1, record, session=session_id(number))
        key = info_topic(RAE, message.session).encode()
        found.append(Record(turn * records + number, 0, key, encode(message), ()))
    return found


def resident_bytes(*names):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [int(lines[name].split()[0]) * 1024 for name in names]


def main():
    records, value_bytes, turns = map(int, sys.argv[1:])
    handler = make(0, sys.stdin.buffer.read())
    peak = 0
    for turn in range(turns):
        given = batch(records, value_bytes, turn)
        size = sum(len(one.key) + len(one.value) for one in given)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        handler.handle(given, Output())
        most, of_files = resident_bytes("VmHWM", "RssFile")
        peak = max(peak, most - of_files)
    print(json.dumps({"bytes": size, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
