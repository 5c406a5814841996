"""While what workers emit waits for the broker they are not heard, so their words must not end the loop's wait."""

from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import workers
from dmpd.stream.channel import Emit
from dmpd.stream.outgoing import BACKLOG_MAX
from dmpd.stream.parent import Parent
from dmpd.stream.settings import StreamSettings
from dmpd.stream.status import StreamStatus


class SilentProducer:
    fatal = None

    def __init__(self):
        self.polled_s = []

    def poll(self, timeout_s):
        self.polled_s.append(timeout_s)
        return 0


def test_a_paused_loop_waits_for_the_broker_instead_of_the_workers(monkeypatch):
    producer = SilentProducer()
    parent = Parent(
        KafkaSettings(),
        StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096),
        server=None,
        producer=producer,
        lifecycle=Lifecycle("test"),
        status=StreamStatus(),
    )
    waited_s = []
    monkeypatch.setattr(workers, "wait", lambda _partitions, timeout_s: waited_s.append(timeout_s))
    parent.on_assigned({0: 5})
    [partition] = parent._partitions.values()
    partition.flow.pause(0.0)
    parent._settle([], 0.0)
    for _ in range(BACKLOG_MAX):
        parent._outgoing.emit(partition, Emit("t", b"k", b"v"))
    assert parent._poll_timeout_s() == 0
    assert (producer.polled_s, len(waited_s)) == ([], 1)
    parent._outgoing.emit(partition, Emit("t", b"k", b"v"))
    assert parent._poll_timeout_s() == 0
    assert producer.polled_s[0] > 0
    assert len(waited_s) == 1
    parent.on_lost([0])
