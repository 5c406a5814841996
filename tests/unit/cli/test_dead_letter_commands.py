"""Which dead letters are meant, how they are paced on their way back, and what a terminal gets to see."""

import argparse
from datetime import UTC, datetime, timedelta

import pytest

from dmpd.cli import ctl_dead_letters, replay, tables
from dmpd.cli.arguments import since
from dmpd.runtime.kafka_memory import MemoryKafka, MemoryProducer
from dmpd.stream.letters import letter_of


def letter(n, *, partition=0, more=()):
    headers = [("dmpd-topic", b"t"), ("dmpd-partition", b"%d" % partition), ("mine", b"h"), *more]
    return letter_of(0, n, 0, b"k%d" % n, b"v%d" % n, headers)


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def kafka():
    kafka = MemoryKafka()
    kafka.create_topic("t", partitions=2)
    return kafka


def test_letters_go_back_in_order_to_their_partitions_and_no_faster_than_asked(kafka):
    clock = Clock()
    letters = [letter(n, partition=n % 2) for n in range(21)]
    outcome = replay.send(
        letters, MemoryProducer(kafka), topic="t", per_second=10.0, now_s=lambda: clock.now_s, sleep=clock.sleep
    )
    assert (outcome.replayed, outcome.refused, outcome.failed, outcome.unanswered) == (21, 0, 0, 0)
    assert clock.now_s == pytest.approx(102.0)
    for partition in (0, 1):
        stored = kafka.topics["t"][partition]
        assert [one.value for one in stored] == [b"v%d" % n for n in range(partition, 21, 2)]
        assert stored[0].headers == (("mine", b"h"), ("dmpd-replayed", b"1"))


def test_what_cannot_go_back_costs_itself_alone(kafka):
    letters = [letter(0), letter(1, more=[("dmpd-truncated", b"9")]), letter(2, partition=7), letter(3)]
    letters.insert(0, letter(9, partition=99_999_999_999))
    outcome = replay.send(letters, MemoryProducer(kafka), topic="t", per_second=0)
    assert (outcome.replayed, outcome.refused, outcome.failed) == (2, 2, 1)
    assert sorted(outcome.sentences) == ["0/1", "0/2", "0/9"]
    assert [one.value for one in kafka.topics["t"][0]] == [b"v0", b"v3"]
    checked = replay.check(letters, topic="t")
    assert (checked.replayed, checked.refused) == (3, 2)


def test_a_full_producer_is_waited_for(kafka):
    outcome = replay.send(
        [letter(n) for n in range(50)], MemoryProducer(kafka, queue_records_max=3), topic="t", per_second=0
    )
    assert outcome.replayed == 50


def test_letters_without_an_answer_are_told(kafka, monkeypatch):
    monkeypatch.setattr(replay, "_FLUSH_TIMEOUT_S", 0.05)
    kafka.up = False
    assert replay.send([letter(0)], MemoryProducer(kafka), topic="t", per_second=0).unanswered == 1


@pytest.mark.parametrize(
    ("text", "ago"), [("30s", timedelta(seconds=30)), ("2h", timedelta(hours=2)), ("3d", timedelta(days=3))]
)
def test_since_so_long_ago(text, ago):
    assert abs(datetime.now(UTC) - ago - since(text)) < timedelta(seconds=30)


def test_since_an_instant():
    assert since("2026-11-25T04:00:00Z") == since("2026-11-25T04:00:00") == datetime(2026, 11, 25, 4, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "soon", "5", "5y", "-3h", "99999999999d", "2026-13-01"])
def test_since_nonsense_says_what_was_expected(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected 30m, 2h, 3d or an RFC 3339 time"):
        since(text)


def test_a_terminal_gets_nothing_that_steers_it():
    assert tables.printable("a\x1b[2J\x9bb\u202ec\nd") == "a\\x1b[2J\\x9bb\\u202ec\\nd"
    assert tables.printable("a\n\tb", keep="\n") == "a\n\\tb"
    assert tables.printable("süß 日本") == "süß 日本"


@pytest.mark.parametrize("timestamp_ms", [1 << 62, -(1 << 62)])
def test_a_letter_of_no_calendars_time_is_listed(timestamp_ms):
    row = ctl_dead_letters._row(letter_of(0, 7, timestamp_ms, b"k", b"v", []))
    assert row[:3] == ("0", "7", f"{timestamp_ms} ms")
