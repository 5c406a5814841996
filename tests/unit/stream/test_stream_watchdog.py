"""When a worker counts as stuck."""

from dmpd.stream.frames import Position
from dmpd.stream.watchdog import Watchdog

HERE, THERE = Position(0, 0), Position(8, 0)


def watch(seconds, *, fed=True, released=HERE, start_s=0.0, dog=None, waiting=False):
    """Ask each half second; returns the second of the first accusation, or None, and the watchdog."""
    dog = dog or Watchdog(stuck_s=10, sink_silence_s=30)
    for half in range(int(seconds * 2)):
        if waiting:
            dog.said_waiting()
        if dog.is_stuck(start_s + half / 2, fed=fed, released=released):
            return half / 2, dog
    return None, dog


def test_fed_and_without_release_is_stuck():
    accused_s, _ = watch(60)
    assert 10 <= accused_s <= 11


def test_without_records_nobody_is_stuck():
    assert watch(60, fed=False)[0] is None


def test_a_release_begins_anew():
    _, dog = watch(9)
    accused_s, _ = watch(60, released=THERE, start_s=9, dog=dog)
    assert accused_s >= 10


def test_waiting_excuses_only_while_it_is_repeated():
    accused_s, dog = watch(600, waiting=True)
    assert accused_s is None
    accused_s, _ = watch(60, start_s=600, dog=dog)
    assert 29 <= accused_s <= 32


def test_a_parent_that_was_frozen_accuses_nobody():
    _, dog = watch(5)
    assert not dog.is_stuck(5000, fed=True, released=HERE)
