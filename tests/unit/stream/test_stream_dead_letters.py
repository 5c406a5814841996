"""Dead letters look the same whoever gave the record up."""

from datetime import UTC, datetime

from dmpd.stream.dead_letters import Origin, Verdict, dead_letter
from dmpd.stream.handler import Record

AT = datetime(2026, 11, 25, 4, 5, 6, 789_000, UTC)
VERDICT = Verdict("bad", "déjà vu \ud800", "handler")


def made(record, **more):
    return dead_letter(record, VERDICT, Origin("t", 3), topic="t.dead", at=AT, **more)


def test_key_value_and_headers_stay_and_the_reason_is_added():
    letter = made(Record(7, 1, b"k", b"v", [("mqtt-retain", b"1"), ("empty", None)]))
    assert letter[:3] == ("t.dead", b"k", b"v")
    assert letter.headers == [
        ("mqtt-retain", b"1"),
        ("empty", None),
        ("dmpd-reason", b"bad"),
        ("dmpd-detail", "déjà vu ?".encode()),
        ("dmpd-topic", b"t"),
        ("dmpd-partition", b"3"),
        ("dmpd-offset", b"7"),
        ("dmpd-at", b"2026-11-25T04:05:06.789Z"),
        ("dmpd-by", b"handler"),
    ]


def test_a_replayed_dead_letter_carries_its_newest_reason_only():
    first = made(Record(7, 1, b"k", b"v", ()))
    again = made(Record(9, 1, b"k", b"v", first.headers))
    names = [name for name, _ in again.headers]
    assert len(names) == len(set(names))
    assert dict(again.headers)["dmpd-offset"] == b"9"


def test_nulls_become_empty():
    assert made(Record(7, 1, None, None, ()))[1:3] == (b"", b"")


def test_truncated_says_how_large_it_was():
    letter = made(Record(7, 1, b"k", b"v" * 500, ()), truncated=True)
    assert letter.value == b""
    assert dict(letter.headers)["dmpd-truncated"] == b"500"
