"""A worker's memory is bounded whatever its rows hold, also rows from before there was a bound for what they hold."""

import contextlib
import re
from pathlib import Path

import pytest
from msgspec import Raw

from dmpd.cloud_registry import reader
from dmpd.model.record import DeviceRecord, Interface, RecordPatch
from tests.support.messages import RAE, change, checkpoint, session_id
from tests.support.rows import OutputTwin, make_handler, record_of, rows_of

pytestmark = pytest.mark.services
SESSIONS = 12
_ENLARGE = """
INSERT INTO device_attribute SELECT rae, session, 'big-' || n, ('[' || repeat('1e308,', 2700) || '0]')::jsonb
FROM device_session, generate_series(1, 15) AS n
"""


def hand(handler, messages, start=0):
    output = OutputTwin()
    handler.handle([record_of(message, start + place) for place, message in enumerate(messages)], output)
    assert output.refused == {}


@contextlib.contextmanager
def memory_more_mib():
    """What the process took at most, beyond what it had."""
    found = []
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status_kib("VmRSS")
    yield found
    found.append((_status_kib("VmHWM") - before) / 1024)


def _status_kib(name):
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


@pytest.mark.parametrize("way", ["changes", "repeated", "checkpoints"])
def test_a_batch_that_meets_large_rows_takes_no_more_memory_than_one_of_them(connection, postgres, way):
    sessions = [session_id(number) for number in range(SESSIONS)]
    first = [checkpoint(1, session=session, seq=1) for session in sessions]
    with contextlib.closing(make_handler(postgres)) as handler:
        hand(handler, first)
    connection.execute(_ENLARGE)
    assert sum(reader.content_bytes(connection, [(RAE, sessions[0])]).values()) > 12_000_000
    batch = {
        "repeated": first,
        "checkpoints": [checkpoint(9, DeviceRecord(state="online"), session=session) for session in sessions] * 8,
    }.get(
        way,
        [
            change(rev, patch=RecordPatch(state="online"), session=session)
            for session in sessions
            for rev in range(2, 10)
        ],
    )
    with contextlib.closing(make_handler(postgres)) as handler:
        with memory_more_mib() as found:
            hand(handler, batch, start=1000)
        rows = connection.execute("SELECT DISTINCT rev, state, stale FROM device_session").fetchall()
    assert rows == [(1, "unknown", False) if way == "repeated" else (9, "online", False)]
    assert found[0] < 75, "one row takes 13 MB of text, all of them 150"


def test_of_rows_read_whole_a_large_one_is_left_to_the_full_rules(connection, postgres):
    content = {
        1: DeviceRecord(attributes={"a": Raw(b'"' + b"x" * 16_000 + b'"')}),
        2: DeviceRecord(attributes={str(n): Raw(b'"' + b"x" * 16_000 + b'"') for n in range(5)}),
        3: DeviceRecord(interfaces=(Interface(mac="02:00:00:00:00:01", hostname="x" * 1000),) * 32),
        4: DeviceRecord(interfaces=tuple(Interface(mac="02:00:00:00:00:01", hostname="ä" * 1024) for _ in range(32))),
        5: DeviceRecord(),
    }
    with contextlib.closing(make_handler(postgres)) as handler:
        hand(handler, [checkpoint(1, record, session=session_id(n)) for n, record in content.items()])
    found = reader.read_whole(connection, [(RAE, session_id(n)) for n in content])
    assert [found[RAE, session_id(n)].is_exact for n in content] == [True, False, True, False, True]
    assert found[RAE, session_id(5)].record == DeviceRecord()
    assert found[RAE, session_id(1)].record.attributes.keys() == {"a"}
    sizes = reader.content_bytes(connection, [(RAE, session_id(n)) for n in (2, 3, 5, 9)])
    assert [sizes[RAE, session_id(n)] // 1000 for n in (2, 3, 5, 9)] == [80, 32, 0, 0]
    many = {(RAE, session_id(n)) for n in range(1, 2001)}
    assert not reader.read_whole(connection, many)[RAE, session_id(1)].is_exact, "of many rows only small ones"
    with contextlib.closing(make_handler(postgres)) as handler:
        batch = [
            change(rev, patch=RecordPatch(attributes={"new": Raw(b"1")}), session=session_id(n))
            for n in content
            for rev in range(2, 20)
        ]
        hand(handler, batch, start=100)
    rows = rows_of(connection)
    for n, record in content.items():
        row = rows[session_id(n)]
        assert (row.rev, row.stale) == (19, False)
        assert row.record.attributes.keys() == record.attributes.keys() | {"new"}
        assert row.record.interfaces == record.interfaces
