"""How units are cut into transactions: in order, none lost, each within both bounds."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.cloud_registry.gather import Step, Unit, chunks
from dmpd.stream.handler import Record
from tests.support.messages import RAE, change, session_id
from tests.support.rows import TIMESTAMP_MS


def unit_of(number, size_bytes):
    return Unit(RAE, session_id(number), [Step(Record(number, TIMESTAMP_MS, b"", b"x" * size_bytes, ()), change(1))])


@given(
    sizes=st.lists(st.integers(0, 60), max_size=60),
    sessions_max=st.integers(1, 20),
    bytes_max=st.integers(1, 100),
)
def test_a_transaction_keeps_within_its_sessions_and_its_bytes(sizes, sessions_max, bytes_max):
    units = [unit_of(number, size) for number, size in enumerate(sizes)]
    found = list(chunks(units, sessions_max=sessions_max, bytes_max=bytes_max))
    assert [unit for chunk in found for unit in chunk] == units
    for place, chunk in enumerate(found):
        size_bytes = sum(unit.size_bytes for unit in chunk)
        assert 1 <= len(chunk) <= sessions_max
        assert size_bytes <= bytes_max or len(chunk) == 1
        if place + 1 < len(found):
            is_full = len(chunk) == sessions_max
            assert is_full or size_bytes + found[place + 1][0].size_bytes > bytes_max, "as few as can be"
