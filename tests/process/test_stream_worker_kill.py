"""A worker killed at random, without Kafka: nothing is skipped, nothing overtakes, each record comes, as it was."""

import random
import sys
import time
from itertools import pairwise

import pytest

from dmpd.runtime.settings import LogSettings
from dmpd.stream import suspicion
from dmpd.stream.fork_server import ForkServer, Hello
from dmpd.stream.frames import Frame
from dmpd.stream.outgoing import OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.workers import Workers, wait
from tests.support.stream_handlers import content, handled

SETTINGS = StreamSettings(
    ring_bytes=1 << 16,
    max_record_bytes=4096,
    batch_records_max=37,
    worker_backoff_first_s=0.001,
    worker_backoff_max_s=0.002,
)


class NothingProduced:
    fatal = None

    def poll(self, timeout_s):
        return 0


@pytest.fixture
def server(tmp_path):
    argument = f'{{"folder": "{tmp_path}", "slow_s": 0.0002, "contents": true}}'.encode()
    hello = Hello("tests.support.stream_handlers:note", argument, sys.path, LogSettings(level="error"), "test")
    server = ForkServer(hello)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("kills", [150, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_no_kill_skips_or_reorders_a_record(tmp_path, server, kills, monkeypatch):
    monkeypatch.setattr(suspicion, "DEATHS_ALONE_MAX", kills + 1)  # here the kills come from outside, all of them
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    partition = Partition(0, epoch=1, next_offset=0, settings=SETTINGS)
    outgoing = OutgoingRecords(NothingProduced(), topic="t", dead_letter_topic="d")
    workers = Workers(server, SETTINGS, outgoing)
    offset = killed = 0
    placed = []
    kill_at_s = 0.0
    dying = None
    deadline_s = time.monotonic() + 1.0 * kills + 20
    while killed < kills or not partition.ledger.is_complete:
        now_s = time.monotonic()
        assert now_s < deadline_s, f"seed {seed}: {killed} kills, {partition.ledger.open_records} records open"
        workers.listen({partition.number: partition})
        workers.tend([partition], now_s)
        partition.free()
        if killed < kills:
            placed += place(partition, offset, dice)
            offset = len(placed)
            life = partition.life
            if life is not None and life.state == "ready" and life is not dying and now_s >= kill_at_s:
                life.kill()
                dying = life  # "ready" until its death is noticed; on a busy machine that is not at once
                killed += 1
                kill_at_s = now_s + dice.expovariate(1 / 0.004)
        wait([partition], 0.002)
    workers.end([partition], 5)
    assert partition.ledger.next_offset == offset
    assert partition.restarts == kills
    partition.close()
    seen = handled(tmp_path, 0)
    assert set(seen) == set(range(offset)), f"seed {seed}"
    expected = 0
    for one in seen:  # a successor may begin earlier than its predecessor got, never later
        assert one <= expected, f"seed {seed}: {one} came before {expected}"
        expected = max(expected, one + 1)
    assert set(handled(tmp_path, 0, "contents")) == set(placed), f"seed {seed}: other bytes than were placed"
    jumps = sum(after != before + 1 for before, after in pairwise(seen))
    assert jumps <= kills, f"seed {seed}: went back {jumps} times for {kills} deaths"


def place(partition, offset, dice):
    """Offer a frame of a few records; returns what was taken of it (the rest is offered again next time, as other)."""
    count = dice.randint(1, 60)
    offsets = list(range(offset, offset + count))
    values = [dice.randbytes(dice.randint(0, 60)).hex().encode() for _ in offsets]
    before = partition.ledger.placed_records
    partition.place(Frame(offsets, [0] * count, [b"k"] * count, values, None))
    partition.flow.resumed(time.monotonic())
    taken = partition.ledger.placed_records - before
    return [content(*one) for one in zip(offsets[:taken], [b"k"] * taken, values[:taken], strict=True)]
