"""Everything that a RAE can send, at the database: each is a dead letter with its reason or is handled; it costs nobody
else anything and reaches nobody else's rows.
"""

import contextlib
import json
import random
import time

import msgspec
import pytest

from dmpd.model.codec import encode
from dmpd.model.record import DeviceRecord
from dmpd.model.topics import info_topic
from dmpd.stream.handler import Record
from tests.support.cloud_tables import assert_same_tables, stored_tables
from tests.support.messages import EPOCH, RAE, SESSION, checkpoint, session_id
from tests.support.rows import TIMESTAMP_MS, OutputTwin, make_handler, migrated

pytestmark = pytest.mark.services

EVIL = "EVIL-1"
OTHER = "RAE-8"
KEY = info_topic(EVIL, SESSION).encode()
OWN = info_topic(EVIL, "rae").encode()
ALONE = session_id(60)
"""Of what a database might refuse: nothing that comes after it takes its place before it is written."""
HANDLED = None


INCOMPRESSIBLE = "".join(map(chr, random.Random(1).sample(range(0x10000, 0x1FFFE), 513)))
"""An index would have to hold it whole."""


def text(kind="change", **fields):
    """A message of the evil RAE as JSON, with whatever fields."""
    whole = {"v": 1, "kind": kind, "rae": EVIL, "session": SESSION, "at": "2026-11-25T04:00:00.123Z", "epoch": EPOCH}
    whole |= {"rev": 5} if kind in ("change", "checkpoint", "closed") else {}
    whole |= {"record": {}} if kind == "checkpoint" else {}
    return json.dumps({name: value for name, value in (whole | fields).items() if value is not ...}).encode()


def raw(name, value):
    """The same, one field's value being any text."""
    return text(**{name: "PLACE"}).replace(b'"PLACE"', value)


def attributes(content):
    return raw("set", b'{"attributes": ' + content + b"}")


def attribute(value):
    return attributes(b'{"a": ' + value + b"}")


def own(kind, **fields):
    return text(kind, session="rae", rev=..., **fields)


def status(**fields):
    return own("status", **({"state": "ready", "run": 1, "seq_high": 0} | fields))


def roster(**fields):
    return own("roster", **({"first": session_id(0), "last": session_id(9), "sessions": [], "seq_high": 0} | fields))


def interface(**fields):
    return text(set={"interfaces": [{"mac": "02:00:00:00:00:01"} | fields]})


KINDS = {
    "no key": (None, text(), "no_key"),
    "an empty key": (b"", text(), "no_key"),
    "a key that is no ASCII": ("dmp/v1/RAE-ä/rae/info".encode(), text(), "bad_key"),
    "a key that is no topic": (b"evil", text(), "bad_key"),
    "a key of another version": (KEY.replace(b"/v1/", b"/v2/"), text(), "bad_key"),
    "a key with wildcards": (b"dmp/v1/+/+/info", text(), "bad_key"),
    "a key with a NUL": (KEY.replace(b"EVIL", b"EV\0L"), text(), "bad_key"),
    "a user's name as serial": (info_topic("u-ada", SESSION).encode(), text(rae="u-ada"), "bad_key"),
    "a serial of 65 characters": (info_topic("R" * 65, SESSION).encode(), text(rae="R" * 65), "bad_key"),
    "a session in capitals": (info_topic(EVIL, "0F1E2345-6789-4ABC-8DEF-0123456789AB").encode(), text(), "bad_key"),
    "a command's topic": (
        f"dmp/v1/{EVIL}/rae/cmd/svc-registry".encode(),
        own("request", id="1", verb="ping", epoch=...),
        "bad_key",
    ),
    "a response's topic": (
        f"dmp/v1/{EVIL}/rae/rsp/op-ada".encode(),
        own("response", id="1", outcome="done"),
        "bad_key",
    ),
    "an acknowledgement": (f"dmp/v1/{EVIL}/rae/ack".encode(), own("durable", stored=[[1, 2]]), "bad_key"),
    "no value": (KEY, None, "empty"),
    "an empty value": (KEY, b"", "empty"),
    "no JSON": (KEY, b"\x00\x01\x02", "malformed"),
    "half a message": (KEY, text()[:-9], "malformed"),
    "two messages": (KEY, text() + text(), "malformed"),
    "a list": (KEY, b"[" + text() + b"]", "malformed"),
    "null": (KEY, b"null", "malformed"),
    "bytes that are no UTF-8": (KEY, attribute(b'"\xff"'), "text"),
    "a NUL in a text": (KEY, raw("set", rb'{"name": "a\u0000b"}'), "text"),
    "a NUL in a value": (KEY, attribute(rb'["\u0000"]'), "text"),
    "a NUL in an attribute's name": (KEY, attributes(rb'{"a\u0000": 1}'), "text"),
    "a NUL in an event": (KEY, text("event", code="x", detail={"a": "\0"}), "text"),
    "a lone surrogate in a text": (KEY, raw("set", rb'{"name": "\ud800"}'), "malformed"),
    "a lone surrogate in a value": (KEY, attribute(rb'"\udfff"'), "malformed"),
    "NaN": (KEY, attribute(b"NaN"), "malformed"),
    "infinity": (KEY, attribute(b"-Infinity"), "malformed"),
    "a number beyond a double": (KEY, attribute(b"1e400"), "range"),
    "a number of 16,000 digits": (KEY, attribute(b"9" * 16_000), "range"),
    "a number too small for a double": (
        info_topic(EVIL, ALONE).encode(),
        attribute(b"1e-99999").replace(SESSION.encode(), ALONE.encode()),
        "range",
    ),
    "a zero of 99,999 places": (KEY, attribute(b"0e-99999"), "range"),
    "a zero of 16,384 places": (KEY, attribute(b"[0.0e-16383]"), "range"),
    "a zero with an exponent of 20 digits": (KEY, attribute(b"0e99999999999999999999"), "range"),
    "a number of 16,405 places": (KEY, attribute(b"0." + b"1" * 16_100 + b"e-305"), "range"),
    "an integer beyond 64 bits": (KEY, attribute(b"[18446744073709551616]"), "range"),
    "rev 2^63": (KEY, raw("rev", b"9223372036854775808"), "range"),
    "rev 2^63 - 1": (info_topic(EVIL, session_id(50)).encode(), raw("rev", b"9223372036854775807"), "mismatch"),
    "rev 0": (KEY, text(rev=0), "range"),
    "rev -1": (KEY, text(rev=-1), "range"),
    "rev 1.5": (KEY, text(rev=1.5), "malformed"),
    "rev as text": (KEY, text(rev="5"), "malformed"),
    "rev true": (KEY, text(rev=True), "malformed"),
    "no rev": (KEY, text(rev=...), "malformed"),
    "an epoch beyond the year 2100": (KEY, text(epoch=4_102_444_800_001), "range"),
    "epoch 0": (KEY, text(epoch=0), "range"),
    "seq 2^63": (KEY, raw("seq", b"9223372036854775808"), "range"),
    "10,000 attributes": (KEY, text(set={"attributes": {f"a{n}": n for n in range(10_000)}}), "malformed"),
    "257 attributes": (KEY, text(set={"attributes": {f"a{n}": n for n in range(257)}}), "malformed"),
    "a value of 16 KiB": (KEY, attribute(b'"' + b"x" * (16 * 1024 - 1) + b'"'), "too_large"),
    "a value of 256 KiB": (KEY, attribute(b'"' + b"x" * (256 * 1024) + b'"'), "too_large"),
    "a value of 16 KB with its numbers written out": (KEY, attribute(b"[" + b"1e308," * 52 + b"1e308]"), "too_large"),
    "257 KB with its numbers written out": (
        KEY,
        attributes(b"{%s}" % b",".join(b'"a%d": [%s1]' % (n, b"1e308," * 52) for n in range(17))),
        "too_large",
    ),
    "a name of 129 bytes": (KEY, text(set={"attributes": {"x" * 129: 1}}), "too_large"),
    "a name of 65 times two bytes": (KEY, text(set={"attributes": {"\u00e4" * 65: 1}}), "too_large"),
    "an empty name": (KEY, text(set={"attributes": {"": 1}}), "too_large"),
    "a text of 1025 characters": (KEY, text(set={"name": "x" * 1025}), "malformed"),
    "an ESN of 2,049 bytes": (KEY, text(set={"esn": "\u00e4" * 1024 + "x"}), "malformed"),
    "an ESN of 513 times four bytes": (KEY, text("checkpoint", record={"esn": INCOMPRESSIBLE}), "too_large"),
    "a cause of 129 characters": (KEY, text(cause="x" * 129), "malformed"),
    "10,000 lists in each other": (KEY, attribute(b"[" * 10_000 + b"]" * 10_000), "malformed"),
    "100,000 objects in each other": (KEY, b'{"a":' * 40_000, "malformed"),
    "65 lists in each other": (KEY, attribute(b"[" * 65 + b"]" * 65), "malformed"),
    "an unknown state": (KEY, text(set={"state": "asleeep"}), "malformed"),
    "a wrong MAC": (KEY, interface(mac="02-00-00-00-00-01"), "malformed"),
    "a wrong address": (KEY, interface(ip4="10.0.0.256"), "malformed"),
    "an address of the other kind": (KEY, interface(ip6=["10.0.0.1"]), "malformed"),
    "33 interfaces": (KEY, text(set={"interfaces": [{"mac": "02:00:00:00:00:01"}] * 33}), "malformed"),
    "65 addresses": (KEY, interface(ip6=["fe80::1"] * 65), "too_large"),
    "a name set and unset": (KEY, text(set={"attributes": {"a": 1}}, unset=["a"]), "malformed"),
    "no time": (KEY, text(at="yesterday"), "malformed"),
    "a time without a zone": (KEY, text(at="2026-11-25T04:00:00"), "malformed"),
    "the year 1": (KEY, text(at="0001-01-01T00:00:00+14:00"), "range"),
    "the year 9999": (KEY, text(at="9999-12-31T23:59:59-14:00"), "range"),
    "a zone of 16 hours": (KEY, text(at="2026-11-25T04:00:00+16:00"), "range"),
    "a zone of almost a day": (KEY, text("checkpoint", at="2026-11-25T04:00:00-23:59"), "range"),
    "first seen in a zone of 16 hours": (KEY, text(set={"first_seen": "2026-11-25T04:00:00-16:00"}), "range"),
    "a RAE in a zone of 16 hours": (OWN, status(at="2026-11-25T04:00:00+16:00"), "range"),
    "the thirteenth month": (KEY, text(at="2026-13-01T00:00:00Z"), "malformed"),
    "first seen in the year 1": (KEY, text(set={"first_seen": "0001-01-01T00:00:00Z"}), "range"),
    "another RAE's serial in the payload": (KEY, text(rae=RAE), "mismatch"),
    "another session in the payload": (KEY, text(session=session_id(7)), "mismatch"),
    "version 2": (KEY, text(v=2), "unsupported"),
    "no version": (KEY, text(v=...), "malformed"),
    "an unknown kind": (KEY, text("hello"), "unsupported"),
    "no kind": (KEY, text(kind=...), "malformed"),
    "the wrong kind last, of two": (KEY, text()[:-1] + b', "kind": "hello"}', "unsupported"),
    "a change of the RAE itself": (OWN, text(session="rae"), "mismatch"),
    "a status of a device": (KEY, text("status", state="ready", run=1, seq_high=0), "mismatch"),
    "an unknown reason to close": (KEY, text("closed", reason="bored"), "malformed"),
    "a successor that is no session": (KEY, text("closed", reason="left", successor="me"), "malformed"),
    "a roster that ends before it begins": (OWN, roster(first=session_id(9), last=session_id(0)), "range"),
    "a roster beyond its range": (OWN, roster(sessions=[session_id(10)]), "range"),
    "a roster of 1001": (OWN, roster(sessions=[session_id(1)] * 1001), "malformed"),
    "run 0": (OWN, status(run=0), "range"),
    "an age beyond all clocks": (OWN, status(outbox_age_s=1e308), "range"),
    "a certificate of a billion years": (OWN, status(certificate_days_left=365 * 10**9), "range"),
    "an age below 0": (OWN, status(outbox_age_s=-1), "malformed"),
    # handled: the row of the evil RAE says so, and no other
    "the same key twice: the last one": (KEY, text(set={"name": "a"})[:-1] + b', "rev": 6}', HANDLED),
    "unknown fields": (KEY, text(rev=7, colour="red"), HANDLED),
    "64 lists in each other": (
        KEY,
        text(rev=8, set={"attributes": {"deep": json.loads("[" * 61 + "]" * 61)}}),
        HANDLED,
    ),
    "256 attributes": (KEY, text(rev=9, set={"attributes": {f"a{n}": n for n in range(256)}}), HANDLED),
    "an ESN of 512 times four bytes": (KEY, text(rev=10, set={"esn": INCOMPRESSIBLE[1:]}), HANDLED),
    "a zone of 15:59": (KEY, text(rev=11, at="2026-11-25T04:00:00+15:59"), HANDLED),
    "the highest epoch": (KEY, text("checkpoint", epoch=4_102_444_800_000), HANDLED),
    "the highest rev": (KEY, text("checkpoint", epoch=4_102_444_800_000, rev=2**63 - 1), HANDLED),
    "a status from the future": (OWN, status(at="2099-01-01T00:00:00Z", epoch=4_102_444_800_000), HANDLED),
    "an event of everybody's": (OWN, own("event", code="x" * 128, detail={"a": {"b": [None]}}), HANDLED),
    "a roster of nobody": (
        OWN,
        roster(epoch=4_102_444_800_000, seq_high=2**63 - 1, last="f" * 8 + session_id(0)[8:]),
        HANDLED,
    ),
    "the end of a session": (KEY, text("closed", rev=2**63 - 1, epoch=1, reason="left"), HANDLED),
}


@pytest.fixture(scope="module")
def database(postgres_server):
    with postgres_server.database() as settings, migrated(settings) as connection:
        yield settings, connection


def good(rae, number):
    record = DeviceRecord(name=f"n{number}", state="online")
    return msgspec.structs.replace(checkpoint(number + 1, record, session=session_id(number % 5)), rae=rae)


def numbered(records):
    return [Record(offset, TIMESTAMP_MS, key, value, ()) for offset, (key, value) in enumerate(records)]


def interleaved():
    """Before and after each bad record a good one of either neighbour, one of them with the very same session."""
    for number, (key, value, _) in enumerate(KINDS.values()):
        for rae in (RAE, OTHER):
            yield _pair(good(rae, number))
        yield key, value


def handle(settings, records, width=1_000_000):
    output = OutputTwin()
    with contextlib.closing(make_handler(settings, sleep=None)) as handler:
        for at in range(0, len(records), width):
            handler.handle(records[at : at + width], output)
    return output


def neighbours_alone(connection, settings):
    """The tables of the neighbours when nobody bad is around; the database is empty afterwards."""
    records = [_pair(good(rae, number)) for number in range(len(KINDS)) for rae in (RAE, OTHER)]
    assert handle(settings, numbered(records)).refused == {}
    tables = stored_tables(connection, [RAE, OTHER])
    for table in ("device_session", "device_interface", "device_attribute", "device_event", "rae"):
        connection.execute(f"TRUNCATE {table}")
    return tables


def _pair(message):
    return info_topic(message.rae, message.session).encode(), encode(message)


@pytest.mark.parametrize("width", [1, 1000])
def test_each_is_a_dead_letter_or_handled_and_costs_nobody_else_anything(database, width):
    """``width``: records in a batch. The sleep of the handler is None: nothing may be tried again."""
    settings, connection = database
    expected = neighbours_alone(connection, settings)
    records = numbered(interleaved())
    refused = handle(settings, records, width).refused
    found = {name: refused.get(3 * number + 2, (HANDLED, ""))[0] for number, name in enumerate(KINDS)}
    assert found == {name: reason for name, (_, _, reason) in KINDS.items()}
    assert len(refused) == sum(reason is not HANDLED for _, _, reason in KINDS.values())
    assert all(detail for _, detail in refused.values()), "each says what is wrong"
    stored = stored_tables(connection, [RAE, OTHER])
    if width == 1:
        assert_same_tables(stored, expected)
    else:
        assert stored["device_session"] == expected["device_session"]
        assert stored["device_attribute"] == expected["device_attribute"]
    raes = connection.execute("SELECT DISTINCT rae FROM device_session UNION SELECT rae FROM rae").fetchall()
    assert {rae for (rae,) in raes} == {RAE, OTHER, EVIL}
    [session] = stored_tables(connection, [EVIL])["device_session"].values()
    assert session[6] == "left", "what was handled of it is its own"


def test_a_good_message_of_the_same_session_after_the_bad_ones_is_taken(database):
    settings, connection = database
    connection.execute("TRUNCATE device_session, device_attribute, device_event")
    bad = [(key, value) for key, value, reason in KINDS.values() if reason is not HANDLED]
    mine = checkpoint(3, DeviceRecord(name="mine"), session=SESSION)
    output = handle(settings, numbered([*bad, _pair(msgspec.structs.replace(mine, rae=EVIL)), *bad]))
    assert len(output.refused) == 2 * len(bad)
    assert connection.execute("SELECT rae, rev, name FROM device_session").fetchall() == [(EVIL, 3, "mine")]


NEVER_MS = 2**63 - 1
"""A Kafka timestamp that no calendar has; the client gives whatever the producer said."""
LATE = (("mqtt-received-at", b"9999-12-31T23:59:59.999-14:00"),)
FAR = (("mqtt-received-at", b"2026-11-25T04:00:00.000+23:59"),)


@pytest.mark.parametrize(
    ("timestamp_ms", "headers"),
    [
        (NEVER_MS, ()),
        (-(2**63), ()),
        (NEVER_MS, LATE),
        (253_402_300_800_000, ()),
        (TIMESTAMP_MS, LATE),
        (TIMESTAMP_MS, FAR),
    ],
)
def test_a_time_that_no_calendar_has_stops_nobody(database, timestamp_ms, headers):
    """In every kind of message, and when the row is read again."""
    settings, connection = database
    said = [status(run=5), status(run=6), roster(), own("event", code="x", seq=timestamp_ms % 99 + 1)]
    values = [(OWN, value) for value in said] + [(info_topic(EVIL, session_id(70)).encode(), device_of(70))]
    records = [Record(offset, timestamp_ms, key, value, headers) for offset, (key, value) in enumerate(values)]
    for width in (1, 10):
        assert handle(settings, records, width).refused == {}
    assert connection.execute("SELECT count(*) FROM rae WHERE heard_at IS NOT NULL").fetchone()[0] >= 1
    [heard_at] = connection.execute("SELECT heard_at FROM rae WHERE rae = %s", (EVIL,)).fetchone()
    assert 1970 <= heard_at.year <= 9998


def device_of(number):
    return text("checkpoint", session=session_id(number), record={"attributes": {"a": 1}})


GREEDY = info_topic(EVIL, session_id(80)).encode()


def growing(first_rev, last_rev, *, count, size):
    """Each revision sets ``count`` more attributes of ``size`` bytes."""
    for rev in range(first_rev, last_rev + 1):
        added = {f"{rev}-{number}": "x" * size for number in range(count)}
        yield GREEDY, text(session=session_id(80), rev=rev, set={"attributes": added})


@pytest.mark.parametrize("width", [1, 1000])
@pytest.mark.parametrize(
    ("count", "size", "kept", "said"), [(250, 1, 1000, "attributes, at most 1024"), (15, 16_000, 30, "bytes, at most")]
)
def test_no_number_of_valid_changes_makes_a_row_grow_for_ever(database, width, count, size, kept, said):
    """What is beyond the bound is a dead letter each; neighbours and what may be written are as if it had not come."""
    settings, connection = database
    connection.execute("TRUNCATE device_session, device_attribute, device_event, rae")
    first = text("checkpoint", session=session_id(80), rev=1)
    fits = kept // count
    records = [(GREEDY, first), *growing(2, fits + 1, count=count, size=size)]
    beyond = list(growing(fits + 2, fits + 9, count=count, size=size))
    neighbour = [_pair(good(EVIL, number)) for number in range(len(beyond))]
    records += [pair for each in zip(beyond, neighbour, strict=True) for pair in each]
    records += [(GREEDY, text(session=session_id(80), rev=fits + 10, set={"state": "online"}))]
    refused = handle(settings, numbered(records), width).refused
    assert list(refused) == [offset for offset, pair in enumerate(records) if pair in beyond]
    assert all(reason == "refused" and said in detail for reason, detail in refused.values())
    row = connection.execute("SELECT rev, stale, state FROM device_session WHERE session = %s", (session_id(80),))
    assert row.fetchone() == (fits + 10, True, "online"), "what came after knows that something is missing"
    asked = "SELECT count(*) FROM device_attribute WHERE session = %s"
    assert connection.execute(asked, (session_id(80),)).fetchone() == (kept,)
    assert connection.execute("SELECT max(rev) FROM device_session WHERE session < %s", (session_id(9),)).fetchone()[
        0
    ] == len(neighbour)
    healing = text("checkpoint", session=session_id(80), rev=fits + 10, record={"attributes": {"a": 1}})
    assert handle(settings, numbered([(GREEDY, healing)])).refused == {}
    assert connection.execute(asked, (session_id(80),)).fetchone() == (1,)
    row = connection.execute("SELECT rev, stale FROM device_session WHERE session = %s", (session_id(80),))
    assert row.fetchone() == (fits + 10, False)


def test_a_flood_of_growth_costs_its_neighbours_no_more_than_other_messages(database):
    """Refused one by one, each would have to be measured with all that the row has: it is not."""
    settings, connection = database
    connection.execute("TRUNCATE device_session, device_attribute, device_event, rae")
    records = [(GREEDY, text("checkpoint", session=session_id(80), rev=1)), *growing(2, 5, count=200, size=600)]
    flood = list(growing(6, 2005, count=1, size=6000))
    began_s = time.process_time()
    refused = handle(settings, numbered(records + flood)).refused
    assert len(refused) > 1900
    assert time.process_time() - began_s < 20


def test_the_list_is_long():
    assert len(KINDS) >= 48
