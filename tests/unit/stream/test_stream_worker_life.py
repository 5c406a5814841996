"""What the parent remembers of what it told a worker."""

from dmpd.stream import channel
from dmpd.stream.channel import ParentEnd, WorkerEnd
from dmpd.stream.watchdog import Watchdog
from dmpd.stream.worker_life import WorkerLife


def test_a_worker_may_be_in_a_batch_as_wide_as_it_was_ever_told():
    """A narrower width reaches it behind the batch it is in: its death there is none of fewer records."""
    ours, theirs = channel.pair()
    life = WorkerLife(1, -1, ParentEnd(ours), Watchdog(stuck_s=1, sink_silence_s=1))
    widest = []
    for position, records_max in ((8, 7), (16, 1), (16, 3)):
        life.tell_published(position, records_max, 0)
        widest.append(life.widest_told)
    assert widest == [7, 7, 7]
    assert life.told_records_max == 3
    for end in (ours, theirs):
        end.close()


def test_that_more_comes_and_that_no_more_does_is_told_without_anything_new():
    """How many is not: somebody waits for the one or the other only."""
    ours, theirs = channel.pair()
    ours.setblocking(False)
    life, worker = WorkerLife(1, -1, ParentEnd(ours), Watchdog(stuck_s=1, sink_silence_s=1)), WorkerEnd(theirs)
    heard = []
    for coming in (0, 90, 80, 0, 0, 3):
        life.tell_published(8, 7, coming)
        newest = worker.published_within(0, 0.0)
        heard.append(worker.coming if newest else None)
    assert heard == [0, 90, None, 0, None, 3]
    for end in (ours, theirs):
        end.close()
