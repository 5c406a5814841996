"""The frontier of acknowledgements over random orders of confirmation and random losses of the connection."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.bridge.acks import AckFrontier, Ticket

steps = st.lists(st.one_of(st.just("receive"), st.just("reconnect"), st.integers(0, 40)), max_size=200)


@given(steps)
def test_acknowledges_in_receive_order_what_was_confirmed_on_this_connection_only(script) -> None:
    frontier: AckFrontier[int] = AckFrontier()
    in_flight: list[tuple[Ticket, int]] = []
    received: list[int] = []
    confirmed: set[int] = set()
    acknowledged: list[int] = []
    number = 0
    for step in script:
        if step == "receive":
            in_flight.append((frontier.received(number, float(number)), number))
            received.append(number)
            number += 1
        elif step == "reconnect":
            frontier.new_connection()
            received, acknowledged, confirmed = [], [], set()
        elif step < len(in_flight):
            ticket, item = in_flight.pop(step)
            confirmed.add(item)
            ready = frontier.stored(ticket)
            acknowledged += ready
            assert set(ready) <= confirmed, "acknowledged before Kafka had it"
        assert acknowledged == received[: len(acknowledged)], "not in the order of receipt"
        first_open = next((item for item in received if item not in confirmed), None)
        expected = received if first_open is None else received[: received.index(first_open)]
        assert acknowledged == expected, "a message that may be acknowledged was not"
        assert len(frontier) == len(received) - len(acknowledged)


def test_a_late_confirmation_of_an_older_connection_acknowledges_nothing() -> None:
    frontier: AckFrontier[str] = AckFrontier()
    old = frontier.received("old", 0.0)
    frontier.new_connection()
    new = frontier.received("new", 1.0)

    assert frontier.stored(old) == []
    assert frontier.stored(new) == ["new"]


def test_age_is_that_of_the_oldest_unacknowledged_message() -> None:
    frontier: AckFrontier[str] = AckFrontier()
    assert frontier.oldest_age_s(9.0) == 0.0
    first = frontier.received("a", 1.0)
    second = frontier.received("b", 3.0)
    frontier.stored(second)
    assert frontier.oldest_age_s(9.0) == 8.0
    frontier.stored(first)
    assert frontier.oldest_age_s(9.0) == 0.0
