"""Who is paused and resumed, and when the client has to be woken for it."""

import pytest

from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.throttle import Throttle

SETTINGS = StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096)


class Consumer:
    def __init__(self):
        self.resumed, self.woken = [], []

    def resume(self, partitions):
        self.resumed += partitions

    def wake(self, partitions):
        self.woken += partitions

    def pause(self, partitions):
        raise AssertionError


@pytest.fixture
def partitions():
    partitions = {n: Partition(n, epoch=1, next_offset=0, settings=SETTINGS) for n in range(2)}
    yield partitions
    for one in partitions.values():
        one.close()


@pytest.mark.parametrize(("paused", "woken"), [([0, 1], [0, 1]), ([1], [])])
def test_the_client_is_woken_when_all_were_paused(partitions, paused, woken):
    """Its broker threads sleep up to a second then; while one is fetched they do not."""
    consumer = Consumer()
    for number in paused:
        partitions[number].flow.pause(0.0)
    Throttle(partitions).settle(partitions.values(), consumer, 1.0, is_draining=False)
    assert consumer.resumed == paused
    assert consumer.woken == woken
