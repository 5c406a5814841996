"""Every limit: at the bound it passes, one over it is refused, on the edge as in the cloud."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from dmpd.model import limits
from dmpd.model.codec import InvalidMessageError, decode, encode
from dmpd.model.messages import Durable, Event, Roster
from dmpd.model.record import DeviceRecord, Interface, RecordPatch
from dmpd.model.strict import plain_bytes
from dmpd.model.topics import parse_topic
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, closed, session_id

MAC = "02:00:00:00:00:01"


def with_attributes(attributes):
    return change(1, patch=RecordPatch(attributes=attributes))


def with_interfaces(interfaces):
    return change(1, patch=RecordPatch(interfaces=tuple(interfaces)))


def addresses(count):
    ip6 = tuple(f"2001:db8::{number:x}" for number in range(count - 1))
    return with_interfaces([Interface(mac=MAC, ip4="192.168.0.1", ip6=ip6)])


def roster(count):
    sessions = tuple(session_id(number) for number in range(count))
    return Roster(
        v=1,
        rae=RAE,
        session="rae",
        at=AT,
        epoch=EPOCH,
        first=session_id(0),
        last=session_id(10_000),
        sessions=sessions,
        seq_high=1,
    )


def durable(count):
    stored = tuple((number, number) for number in range(1, count + 1))
    return Durable(v=1, rae=RAE, session="rae", at=AT, epoch=EPOCH, stored=stored)


def nested(depth):
    """An attribute so deep that the message has ``depth`` levels: the message, ``set`` and ``attributes`` are three."""
    return with_attributes({"a": Raw(b"[" * (depth - 3) + b"]" * (depth - 3))})


def text(length):
    return change(1, patch=RecordPatch(name="ä" * length))


CASES = {
    "attributes": (limits.ATTRIBUTES_MAX, lambda n: with_attributes({f"a{i}": Raw(b"1") for i in range(n)})),
    "unset attributes": (limits.ATTRIBUTES_MAX, lambda n: change(1, unset=tuple(f"a{i}" for i in range(n)))),
    "attribute name": (limits.ATTRIBUTE_KEY_BYTES_MAX, lambda n: with_attributes({"k" * n: Raw(b"1")})),
    "attribute name in UTF-8": (
        limits.ATTRIBUTE_KEY_BYTES_MAX,
        lambda n: with_attributes({"ä" * (limits.ATTRIBUTE_KEY_BYTES_MAX // 2 - 1) + "k" * (n - 126): Raw(b"1")}),
    ),
    "unset attribute name": (limits.ATTRIBUTE_KEY_BYTES_MAX, lambda n: change(1, unset=("k" * n,))),
    "attribute value": (
        limits.ATTRIBUTE_VALUE_BYTES_MAX,
        lambda n: with_attributes({"k": Raw(b'"' + b"x" * (n - 2) + b'"')}),
    ),
    "attribute value of a checkpoint": (
        limits.ATTRIBUTE_VALUE_BYTES_MAX,
        lambda n: checkpoint(1, DeviceRecord(attributes={"k": Raw(b'"' + b"x" * (n - 2) + b'"')})),
    ),
    "attribute value written out": (
        limits.ATTRIBUTE_VALUE_BYTES_MAX,
        lambda n: with_attributes({"k": Raw(b"[" + b"1e308," * 52 + b'"' + b"x" * (n - 52 * 310 - 4) + b'"]')}),
    ),
    "attribute value of many small exponents": (
        limits.ATTRIBUTE_VALUE_BYTES_MAX,
        lambda n: with_attributes({"k": Raw(b"[" + b"1E9," * 1480 + b'"' + b"x" * (n - 1480 * 11 - 4) + b'"]')}),
    ),
    "attribute value of many fractions": (
        limits.ATTRIBUTE_VALUE_BYTES_MAX,
        lambda n: with_attributes({"k": Raw(b"[" + b"5e-20," * 700 + b'"' + b"x" * (n - 700 * 23 - 4) + b'"]')}),
    ),
    "interfaces": (limits.INTERFACES_MAX, lambda n: with_interfaces([Interface(mac=MAC)] * n)),
    "addresses": (limits.ADDRESSES_MAX, addresses),
    "text": (limits.TEXT_LENGTH_MAX, text),
    "ESN": (
        limits.ESN_BYTES_MAX,
        lambda n: change(1, patch=RecordPatch(esn="\U0001f600" * (n // 4) + "x" * (n % 4))),
    ),
    "ESN of a checkpoint": (
        limits.ESN_BYTES_MAX,
        lambda n: checkpoint(1, DeviceRecord(esn="\U0001f600" * (n // 4) + "x" * (n % 4))),
    ),
    "code": (limits.CODE_LENGTH_MAX, lambda n: change(1, cause="c" * n)),
    "rev": (limits.INT64_MAX, change),
    "seq": (limits.INT64_MAX, lambda n: change(1, seq=n)),
    "epoch": (limits.EPOCH_MAX, lambda n: change(1, epoch=n)),
    "roster": (limits.ROSTER_SESSIONS_MAX, roster),
    "ranges of durable": (limits.DURABLE_RANGES_MAX, durable),
    "nesting": (limits.NESTING_MAX, nested),
}


@pytest.mark.parametrize("name", CASES)
def test_at_the_bound(name):
    bound, message_of = CASES[name]
    message = message_of(bound)
    kind = "ack" if isinstance(message, Durable) else "info"
    topic = parse_topic(f"dmp/v1/{RAE}/{message.session}/{kind}")
    assert decode(encode(message), topic) == message


@pytest.mark.parametrize("name", CASES)
def test_one_over_the_bound(name):
    bound, message_of = CASES[name]
    with pytest.raises(InvalidMessageError) as refusal:
        encode(message_of(bound + 1))
    assert refusal.value.reason in {"too_large", "malformed", "range"}


def payload_of(size):
    payload = encode(Event(v=1, rae=RAE, session=SESSION, at=AT, epoch=EPOCH, code="c"))
    return payload[:-1] + b" " * (size - len(payload)) + b"}"


def test_payload_at_the_bound_and_one_over():
    topic = parse_topic(f"dmp/v1/{RAE}/{SESSION}/info")
    decode(payload_of(limits.PAYLOAD_BYTES_MAX), topic)
    with pytest.raises(InvalidMessageError, match="too_large"):
        decode(payload_of(limits.PAYLOAD_BYTES_MAX + 1), topic)


@pytest.mark.parametrize("number", [b"1e308", b"-1E+99", b"1e9", b"1e-9", b"2.5e-307"])
def test_payload_with_its_numbers_written_out_at_the_bound_and_one_over(number):
    """As databases give them back: a payload of 20 KB could be a megabyte there."""
    topic = parse_topic(f"dmp/v1/{RAE}/{SESSION}/info")
    long = len(written_out(number.decode())) + 1
    value = b"[" + (number + b",") * ((limits.ATTRIBUTE_VALUE_BYTES_MAX - 9) // long) + b"0]"
    payload = encode(with_attributes({f"a{n}": Raw(value) for n in range(15)}))
    rest = limits.PAYLOAD_BYTES_MAX - len(payload) - 15 * value.count(number) * (long - 1 - len(number))
    decode(payload[:-1] + b" " * rest + b"}", topic)
    with pytest.raises(InvalidMessageError, match=r"too_large.*written out"):
        decode(payload[:-1] + b" " * (rest + 1) + b"}", topic)


def written_out(number):
    """As PostgreSQL writes it: no zero has a sign."""
    found = Decimal(number)
    return format(found or abs(found), "f")


@settings(deadline=None)
@given(
    numbers=st.lists(st.from_regex(r"\A-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?\Z"), min_size=1),
    times=st.integers(1, 300),
)
def test_what_is_short_written_out_or_not_breaks_no_bound_and_else_it_is_exact(numbers, times):
    text = "[" + ",".join(numbers * times) + "]"
    try:
        found = plain_bytes(text.encode())
    except InvalidMessageError:
        return
    out = "[" + ",".join(max((written_out(one), one), key=len) for one in numbers * times) + "]"
    assert len(text) <= found
    assert found == len(out) or len(out) <= limits.ATTRIBUTE_VALUE_BYTES_MAX


@pytest.mark.parametrize(
    "message",
    [
        change(1, patch=RecordPatch(name="\0")),
        change(1, patch=RecordPatch(name="\ud800")),
        change(1, patch=RecordPatch(attributes={"a": Raw(b"1")}), unset=("a",)),
        closed(1, session="rae"),
    ],
    ids=["nul", "surrogate", "set and unset", "of the RAE itself"],
)
def test_edge_is_refused_what_the_cloud_would_refuse(message):
    with pytest.raises(InvalidMessageError):
        encode(message)


@pytest.mark.parametrize("number", [b"1e-400", b"-0.1E-0400", b"0." + b"0" * 400 + b"1", b'[1, {"x": 2.5e-324999}]'])
def test_a_number_too_small_for_a_double_is_refused(number):
    """One database rounds it, the other one refuses it."""
    with pytest.raises(InvalidMessageError, match="too small for a double"):
        encode(with_attributes({"a": Raw(number)}))


@pytest.mark.parametrize("number", [b"5e-324", b"0e-999", b"-0.0E-999", b"1e-5", b"0.000"])
def test_small_numbers_and_zero_are_not(number):
    encode(with_attributes({"a": Raw(number)}))
