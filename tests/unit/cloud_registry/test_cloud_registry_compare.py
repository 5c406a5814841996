"""Every way in which a row can differ from the store is seen, and nothing else is."""

import msgspec
import pytest
from msgspec import Raw

from dmpd.cli.verification import judge
from dmpd.cloud_registry.compare import EdgeRecord, compare
from dmpd.cloud_registry.same_json import same_json
from dmpd.model.apply import DeviceRow
from dmpd.model.record import DeviceRecord, Interface
from tests.support.messages import AT, EPOCH, RAE, SESSION

RECORD = DeviceRecord(
    state="online",
    name="tv",
    interfaces=(Interface(mac="02:00:00:00:00:01", ip4="10.0.0.7"),),
    attributes={"a": Raw(b'{"x":1,"y":2}'), "b": Raw(b"true")},
)
EDGE = EdgeRecord(rae=RAE, session=SESSION, epoch=EPOCH, rev=7, record=RECORD)
ROW = DeviceRow(rae=RAE, session=SESSION, epoch=EPOCH, rev=7, seq=3, changed_at=AT, record=RECORD)


def with_(thing, **fields):
    own = {name: value for name, value in fields.items() if name in thing.__struct_fields__}
    rest = {name: value for name, value in fields.items() if name not in own}
    if rest:
        own["record"] = msgspec.structs.replace(thing.record, **rest)
    return msgspec.structs.replace(thing, **own)


@pytest.mark.parametrize(
    ("edge", "row"),
    [
        (EDGE, ROW),
        (EDGE, with_(ROW, epoch=EPOCH + 1)),
        (EDGE, with_(ROW, attributes={"b": Raw(b"true"), "a": Raw(b'{"y": 2, "x": 1.0}')})),
        (with_(EDGE, closed="left", rev=8), with_(ROW, closed="left", rev=8, record=DeviceRecord())),
        (None, None),
        (None, with_(ROW, absent=True)),
        (None, with_(ROW, closed="forgotten", record=DeviceRecord())),
    ],
)
def test_equal(edge, row):
    assert compare(edge, row) == []


@pytest.mark.parametrize(
    ("edge", "row", "kind", "field"),
    [
        (EDGE, None, "missing", "session"),
        (None, ROW, "phantom", "session"),
        (EDGE, with_(ROW, rev=6, name="old"), "missing", "rev"),
        (EDGE, with_(ROW, rev=8), "wrong", "rev"),
        (EDGE, with_(ROW, epoch=EPOCH - 1), "missing", "epoch"),
        (EDGE, with_(ROW, stale=True), "wrong", "stale"),
        (EDGE, with_(ROW, absent=True), "wrong", "absent"),
        (EDGE, with_(ROW, closed="left"), "wrong", "closed"),
        (with_(EDGE, closed="left"), ROW, "missing", "closed"),
        (EDGE, with_(ROW, state="offline"), "wrong", "state"),
        (EDGE, with_(ROW, first_seen=AT), "wrong", "first_seen"),
        (EDGE, with_(ROW, interfaces=()), "wrong", "interfaces"),
        (EDGE, with_(ROW, attributes={"a": RECORD.attributes["a"]}), "wrong", "attributes.b"),
        (EDGE, with_(ROW, attributes={**RECORD.attributes, "c": Raw(b"1")}), "wrong", "attributes.c"),
        (EDGE, with_(ROW, attributes={**RECORD.attributes, "b": Raw(b"1")}), "wrong", "attributes.b"),
    ],
)
def test_different(edge, row, kind, field):
    (difference,) = compare(edge, row)
    assert (difference.kind, difference.field) == (kind, field)


def test_a_session_that_moved_while_it_was_read_is_not_judged():
    moved = with_(EDGE, rev=8)
    (difference,) = judge({SESSION: EDGE}, {SESSION: ROW}, {SESSION: moved})
    assert difference.kind == "unsettled"
    assert list(judge({SESSION: moved}, {SESSION: with_(ROW, rev=8)}, {SESSION: moved})) == []
    (difference,) = judge({SESSION: EDGE}, {SESSION: with_(ROW, name="x")}, {SESSION: EDGE})
    assert (difference.kind, difference.field) == ("wrong", "name")
    (difference,) = judge({}, {}, {SESSION: EDGE})
    assert difference.kind == "unsettled"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("1", "1.0", True),
        ("1", "true", False),
        ("[1, true]", "[1,1]", False),
        ('{"a": null}', "{}", False),
        ('"\\u00e4"', '"ä"', True),
        ("-1e3", "-1000", True),
        ("0.1", "0.10000000000000000", True),
        ("0.1", "0.10000000000000001", False),
        ("1e23", "1" + 23 * "0", True),
        ("12345678901234567e3", "12345678901234567000", True),
        ("[1E+308]", "[1" + 308 * "0" + "]", True),
        ("0e5", "0", True),
        ("-0.0", "0", True),
        ("2.5e-7", "0.00000025", True),
        ("[1,2]", "[2,1]", False),
        ("null", "0", False),
    ],
)
def test_json_is_compared_by_meaning(a, b, same):
    assert same_json(Raw(a.encode()), Raw(b.encode())) is same
    assert same_json(Raw(b.encode()), Raw(a.encode())) is same
