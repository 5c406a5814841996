"""The bound on what Kafka has not confirmed."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.bridge.gate import Gate, GateState


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=120))
def test_closed_above_the_bounds_open_below_half_of_both(script) -> None:
    gate = Gate(bytes_max=200, messages_max=10, leave_after_s=1e9)
    sizes: list[int] = []
    for now_s, (adding, size) in enumerate(script):
        if adding:
            gate.added(size, now_s)
            sizes.append(size)
        elif sizes:
            gate.removed(sizes.pop(0), now_s)
        assert (gate.bytes, gate.messages) == (sum(sizes), len(sizes))
        is_open = gate.state(now_s) is GateState.OPEN
        if sum(sizes) > 200 or len(sizes) > 10:
            assert not is_open
        if sum(sizes) <= 100 and len(sizes) <= 5:
            assert is_open


def test_leaves_after_being_closed_for_long_and_counts_the_time() -> None:
    gate = Gate(bytes_max=10, messages_max=100, leave_after_s=5.0)
    gate.added(11, 100.0)
    assert gate.state(105.0) is GateState.PAUSED
    assert gate.state(105.1) is GateState.LEAVE
    assert gate.closed_s(106.0) == 6.0
    gate.removed(11, 107.0)
    assert gate.state(107.0) is GateState.OPEN
    assert gate.closed_s(200.0) == 7.0


def test_a_lost_producer_leaves_nothing_in_flight() -> None:
    gate = Gate(bytes_max=10, messages_max=100, leave_after_s=5.0)
    gate.added(11, 0.0)
    gate.clear(1.0)
    assert gate.state(1.0) is GateState.OPEN
    assert gate.messages == 0
