"""What a worker remembers is bounded, whatever stands in the rows."""

import pytest
from msgspec import Raw

from dmpd.cloud_registry.known import Known, KnownRows, content_of
from dmpd.model.record import DeviceRecord

BYTES_MAX = 1 << 20


def known(values):
    attributes = {f"a{number}": Raw(value) for number, value in enumerate(values)}
    return Known(1, 1, 1, 0, 0, content_of(DeviceRecord(state="online", attributes=attributes)))


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ([b'"short"', b"17", b"null", b"true"] * 2, 600),
        ([b'"%s"' % (b"x" * 16_000)] * 8, 7),
        ([b'["%s"]' % (b"x" * 16_000)] * 8, 7),
        ([b'"%s"' % ("\u20ac" * 4_000).encode()] * 8, 7),
    ],
    ids=["short", "long texts", "long lists", "long texts of wide characters"],
)
def test_values_count_by_their_length(values, rows):
    remembered = KnownRows(BYTES_MAX)
    for number in range(2000):
        remembered.put(b"%d" % number, known(values))
    assert rows <= len(remembered) <= rows * 1.5
    assert remembered.get(b"1999") is not None
    assert remembered.get(b"0") is None


def test_a_row_beyond_the_bound_is_not_remembered():
    remembered = KnownRows(BYTES_MAX)
    remembered.put(b"small", known([b"1"]))
    remembered.put(b"large", known([b'"%s"' % (b"x" * 16_000)] * 256))
    assert len(remembered) == 0
    remembered.put(b"small", known([b"1"]))
    assert len(remembered) == 1
