"""A dead letter goes back as the record it was, as often as wanted, and says how often."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream.dead_letters import Origin, Verdict, dead_letter
from dmpd.stream.handler import Record
from dmpd.stream.letters import NotReplayableError, letter_of, replay_of

AT = datetime(2026, 11, 25, 4, 0, 0, tzinfo=UTC)
CONTENT = st.none() | st.binary(max_size=20)
NAMES = st.text(max_size=10) | st.sampled_from(["dmpd-", "dmpd-own", "dmpd-headers-unreadable"])
HEADERS = st.lists(st.tuples(NAMES, CONTENT), max_size=4)


def buried(record, *, partition=3, truncated=False):
    """The letter of ``record`` as it is read back."""
    made = dead_letter(
        record, Verdict("bad", "why", "handler"), Origin("t", partition), topic="d", at=AT, truncated=truncated
    )
    return letter_of(0, 17, 5, made.key, made.value, made.headers)


@given(CONTENT, CONTENT, HEADERS, st.integers(1, 4))
def test_a_record_comes_back_whole_however_often_it_fails(key, value, headers, times):
    record = Record(99, 5, key, value, headers)
    for n in range(times):
        letter = buried(record)
        assert (letter.replayed, letter.reason, letter.detail, letter.by) == (n, "bad", "why", "handler")
        assert (letter.topic, letter.origin_partition, letter.origin_offset) == ("t", 3, 99)
        replay = replay_of(letter, topic="t")
        assert (replay.topic, replay.partition, replay.key, replay.value) == ("t", 3, key, value)
        assert replay.headers == [*headers, ("dmpd-replayed", b"%d" % (n + 1))]
        record = Record(99, 5, replay.key, replay.value, replay.headers)


def test_a_truncated_letter_does_not_go_back():
    letter = buried(Record(1, 1, b"k", b"v" * 10, ()), truncated=True)
    assert letter.truncated
    with pytest.raises(NotReplayableError, match="too large to be kept"):
        replay_of(letter, topic="t")


IMPOSSIBLE = [b"99999999999", b"2147483648", b"-1", b"1.5", b"x", b"", b"\xff", "\u0663".encode(), b"9" * 5000]


@pytest.mark.parametrize("said", IMPOSSIBLE)
@pytest.mark.parametrize("name", ["dmpd-partition", "dmpd-offset"])
def test_a_place_that_cannot_be_is_said_and_costs_its_letter(name, said):
    headers = {"dmpd-topic": b"t", "dmpd-partition": b"3", "dmpd-offset": b"99"} | {name: said}
    letter = letter_of(0, 1, 2, b"k", b"v", list(headers.items()))
    if name == "dmpd-offset" and said.startswith((b"999999999", b"2147")) and len(said) < 20:
        assert (letter.impossible, letter.origin_offset) == ("", int(said))
        assert replay_of(letter, topic="t").partition == 3
        return
    assert letter.impossible.startswith(f"its headers name no place in a topic: {name} ")
    assert len(letter.impossible) < 120
    with pytest.raises(NotReplayableError, match="its headers name no place in a topic"):
        replay_of(letter, topic="t")


@given(
    st.lists(
        st.tuples(
            st.text(max_size=12)
            | st.sampled_from(["dmpd-partition", "dmpd-offset", "dmpd-replayed", "dmpd-topic", "dmpd-null"]),
            CONTENT | st.integers().map(lambda number: b"%d" % number),
        )
    )
)
def test_whatever_headers_a_letter_has_it_can_be_read(headers):
    letter = letter_of(0, 1, 2, b"k", b"v", headers)
    try:
        replay = replay_of(letter, topic="t")
    except NotReplayableError:
        return
    assert (replay.topic, 0 <= replay.partition < 2**31) == ("t", True)


def test_a_letter_goes_back_to_no_topic_but_ours():
    letter = buried(Record(1, 1, b"k", b"v", ()))
    with pytest.raises(NotReplayableError, match="it is from the topic t, not from u"):
        replay_of(letter, topic="u")
