"""kill -9 at random moments: what the journal said is committed is there, and record, rev and outbox agree."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import msgspec
import pytest

from dmpd.local_registry.store import DATABASE_NAME, Store, read_devices
from dmpd.model.codec import decode
from dmpd.model.messages import Change, Checkpoint
from dmpd.model.topics import Topic

WRITER = """
import asyncio, itertools, sys, time, uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from dmpd.local_registry.journal import Journal, utc_now
from dmpd.local_registry.registry import Registry
from dmpd.local_registry.settings import OutboxSettings, PresenceSettings
from dmpd.local_registry.source import Evidence

async def main(state_dir, seed):
    random = Random(seed)
    registry = Registry("R1", rules=PresenceSettings(), new_session=lambda: str(uuid.uuid4()), random=random.random)
    journal = Journal(registry, Path(state_dir), bounds=OutboxSettings(), executor=ThreadPoolExecutor(1),
                      random=random.random, boot_id="boot")
    await journal.open()
    journal.sending = True
    print("open", journal.committed, flush=True)
    for turn in itertools.count():
        for _ in range(random.randrange(1, 6)):
            number = random.randrange(20)
            registry.observe(
                Evidence(source="t", seen_at_s=0.0, mac=f"3c:12:aa:00:00:{number:02x}", reach="up",
                         attributes={"turn": str(time.time_ns()).encode()}),
                now_s=time.monotonic(), at=utc_now())
        assert await journal.commit()
        if random.random() < 0.3 and len(journal.window):
            seqs = sorted(journal.window._flights)[: random.randrange(1, 9)]
            journal.stored([(seq, seq) for seq in seqs], time.monotonic())
            await journal.tidy()
            await journal.refill()
        print("committed", journal.committed, journal.seq_high, journal.rows, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class Said(msgspec.Struct):
    """The last thing a writer told before it was killed."""

    committed: int = 0
    seq_high: int = 0


def run_and_kill(state_dir: Path, seed: int, after_s: float) -> Said:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(state_dir), str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("open")
    time.sleep(after_s)  # the moment of the kill is what varies
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read()
    process.wait()
    process.stdout.close()
    said = Said()
    for line in rest.splitlines(keepends=True):
        words = line.split()
        if line.endswith("\n") and words[0] == "committed":
            said = Said(int(words[1]), int(words[2]))
    return said


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_committed_is_lost_by_kill(tmp_path: Path, kills: int) -> None:
    random = Random(20261125)
    seq_seen = 0
    for kill in range(kills):
        said = run_and_kill(tmp_path, seed=kill, after_s=random.random() * 0.15)
        store = Store(tmp_path)
        loaded = store.load()
        assert store.committed_total() >= said.committed, "a confirmed commit is gone"
        assert loaded.seq_next > max(seq_seen, said.seq_high), "an outbox number could be used twice"
        seq_seen = loaded.seq_next - 1
        devices = {device.session: device for device in read_devices(tmp_path / DATABASE_NAME)}
        last: dict[str, Change | Checkpoint] = {}
        for row in store.rows_after(0, rows_max=10**6, bytes_max=1 << 30):
            message = decode(row.payload, Topic("R1", row.session, "info"))
            assert isinstance(message, Change | Checkpoint)
            assert message.seq == row.seq
            assert row.session not in last or message.rev == last[row.session].rev + 1, "a revision without its row"
            last[row.session] = message
        for session, message in last.items():
            assert message.rev == devices[session].rev, "record and outbox disagree"
            changed = message.record.attributes if isinstance(message, Checkpoint) else message.patch.attributes
            assert changed["turn"] == devices[session].record.attributes["turn"]
        store.close()
