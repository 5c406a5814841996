"""At rest the parent looks, tells and settles less often; what wakes it is as quick as ever."""

import pytest

from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import parent as parent_module
from dmpd.stream.drain import StopWatch
from dmpd.stream.parent import Parent
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.status import StreamStatus

SETTINGS = StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096)


class Silent:
    """Fork server and producer."""

    fatal = None

    def is_alive(self):
        return True

    def poll(self, timeout_s):
        return 0


@pytest.fixture
def parent(monkeypatch):
    silent = Silent()
    lifecycle = Lifecycle("test")
    parent = Parent(
        KafkaSettings(),
        SETTINGS,
        server=silent,
        producer=silent,
        lifecycle=lifecycle,
        status=StreamStatus(),
        stop_watch=StopWatch(lifecycle, timeout_s=SETTINGS.drain_timeout_s),
    )
    monkeypatch.setattr(parent._workers, "tend", lambda partitions, now_s: None)
    parent.on_assigned({0: 5, 1: 0})
    yield parent
    parent.on_lost(list(parent._partitions))


def counted(monkeypatch, parent, name):
    calls = []
    monkeypatch.setattr(parent, name, lambda *args: calls.append(args))
    return calls


def rounds(parent, seconds):
    for n in range(int(seconds * 20)):
        parent._round(100.0 + n * 0.05)


@pytest.mark.parametrize(("is_at_rest", "expected"), [(True, 10), (False, 20)])
def test_the_picture_is_drawn_half_as_often_at_rest_and_the_watch_is_kept(parent, monkeypatch, is_at_rest, expected):
    monkeypatch.setattr(Partition, "is_at_rest", property(lambda _: is_at_rest))
    drawn, kept = counted(monkeypatch, parent, "_report"), counted(monkeypatch, parent, "_keep_watch")
    rounds(parent, 10)
    assert (abs(len(drawn) - expected) <= 1, abs(len(kept) - 20) <= 1) == (True, True)


def test_a_round_in_which_nothing_happened_settles_nothing(parent, monkeypatch):
    monkeypatch.setattr(Partition, "is_at_rest", property(lambda _: True))
    monkeypatch.setattr(parent, "_keep_watch", lambda now_s: None)
    settled = counted(monkeypatch, parent, "_settle")
    rounds(parent, 10)
    looks = 10 / parent_module._LOOK_AT_REST_EVERY_S
    assert len(settled) <= looks + 1
    parent._placed.add(parent._partitions[1])
    parent._look_at_s = 1e9
    parent._round(200.0)
    assert settled[-1][0] == {parent._partitions[1]}
