"""``consumer.frame_of``: the columns of what the Kafka client gives, for the record alone as for one of many."""

from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from dmpd.runtime.kafka import UNREADABLE_HEADERS
from dmpd.stream import frames
from dmpd.stream.consumer import frame_of

_BYTES = st.none() | st.binary(max_size=8)
_HEADERS = st.none() | st.lists(st.tuples(st.text(max_size=4), _BYTES), max_size=3)


@st.composite
def _messages(draw: st.DrawFn) -> Message:
    return Message(
        topic="t",
        partition=3,
        offset=draw(st.integers(0, 2**40)),
        key=draw(_BYTES),
        value=draw(_BYTES),
        timestamp=(1, draw(st.integers(-1, 2**40))),
        headers=draw(_HEADERS),
    )


@given(_messages(), st.lists(_messages(), min_size=1, max_size=3))
def test_a_record_alone_looks_as_it_does_among_others(message: Message, others: list[Message]) -> None:
    alone, among = frame_of([message]), frame_of([message, *others])

    assert len(alone.offsets) == 1
    assert frames.record_at(alone, 0) == frames.record_at(among, 0)
    assert (alone.headers is None) == (not message.headers())


class _Unreadable:
    """As the client's message whose header has a name that is no UTF-8."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def headers(self) -> None:
        raise SystemError

    def __getattr__(self, name: str) -> object:
        return getattr(self._message, name)


def test_unreadable_headers_of_a_record_alone_are_one_that_says_so() -> None:
    message = Message(topic="t", partition=3, offset=7, key=b"k", value=b"v", timestamp=(1, 5))

    frame = frame_of([_Unreadable(message)])  # type: ignore[list-item]

    assert frames.record_at(frame, 0).headers == [UNREADABLE_HEADERS]
