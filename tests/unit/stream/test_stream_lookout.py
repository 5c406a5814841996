"""What the lookout makes of a partition whose records were dropped because its ring was full."""

import pytest

from dmpd.runtime.settings import KafkaSettings
from dmpd.stream.lookout import Lookout, NothingMovesError
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.watermarks import Answer

SETTINGS = StreamSettings()


class Watermarks:
    """Kafka says that there are 21 records."""

    def __init__(self):
        self.answer = None
        self.is_silent = False

    def watch(self, partitions, starts):
        return

    def fresh(self, now_s):
        self.answer = Answer(now_s, {0: 21}, {0: 0})
        return None if self.is_silent else self.answer


@pytest.fixture
def lookout():
    lookout = Lookout(KafkaSettings(), SETTINGS)
    lookout._watermarks = Watermarks()
    return lookout


@pytest.fixture
def partition():
    """Its first record was refused; the client's position is behind all of them all the same."""
    partition = Partition(0, epoch=1, next_offset=0, settings=SETTINGS)
    partition.flow.refuse(0)
    partition.flow.pause(0.0)
    yield partition
    partition.close()


def look(lookout, partition, now_s):
    lookout.look({0: partition}, {0: 21}, now_s, is_fetching=True, is_producing=False)


def look_on(lookout, partition, now_s):
    for second in range(10):
        look(lookout, partition, now_s + second)


def test_it_is_behind_by_seconds_too(lookout, partition):
    for now_s in (10.0, 14.0):
        look(lookout, partition, now_s)
        picture = lookout.picture(partition, now_s)
    assert picture["lag"] == 21
    assert picture["lag_s"] == pytest.approx(4.0)


def test_it_is_work_that_must_move(lookout, partition):
    for second in range(int(SETTINGS.nothing_moves_timeout_s)):
        look(lookout, partition, float(second))
    with pytest.raises(NothingMovesError, match="partitions with work: 0"):
        look_on(lookout, partition, SETTINGS.nothing_moves_timeout_s)


@pytest.mark.parametrize("is_silent", [True, False])
def test_waiting_for_the_broker_accuses_nobody(lookout, partition, is_silent):
    """It does not answer, or it has not taken yet what was produced: another process would wait as well."""
    lookout._watermarks.is_silent = is_silent
    for second in range(2 * int(SETTINGS.nothing_moves_timeout_s)):
        lookout.look({0: partition}, {0: 21}, float(second), is_fetching=True, is_producing=not is_silent)
