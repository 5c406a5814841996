"""What the parent remembers of what it told a worker."""

from dmpd.stream import channel
from dmpd.stream.channel import ParentEnd
from dmpd.stream.watchdog import Watchdog
from dmpd.stream.worker_life import WorkerLife


def test_a_worker_may_be_in_a_batch_as_wide_as_it_was_ever_told():
    """A narrower width reaches it behind the batch it is in: its death there is none of fewer records."""
    ours, theirs = channel.pair()
    life = WorkerLife(1, -1, ParentEnd(ours), Watchdog(stuck_s=1, sink_silence_s=1))
    widest = []
    for position, records_max in ((8, 7), (16, 1), (16, 3)):
        life.tell_published(position, records_max)
        widest.append(life.widest_told)
    assert widest == [7, 7, 7]
    assert life.told_records_max == 3
    for end in (ours, theirs):
        end.close()
