"""A row that is as it must be has no differences; each thing that is not, is named."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from dmpd.canary.plan import EVENT_CODE, Plan, expected_row
from dmpd.canary.rows import FoundRow, differences, states_of
from dmpd.model.record import CORE_FIELDS

PLAN = Plan(run="00000000-0000-0000-0000-000000000001", seed=5, epoch=9, first=1, last=50, changes=8, started_ms=1)
OPEN = range(PLAN.closed_slot)


def way_of(states):
    return msgspec.json.encode([["", 0, 0, state, None] for state in states]).decode()


def right(number, slots=OPEN, *, batches=1):
    """The row as a right Cloud Registry writes it, its states told in so many batches."""
    row = expected_row(PLAN, number, slots)
    states = states_of(PLAN, number, slots)
    size = max(1, -(-len(states) // batches))
    events = [(PLAN.event_slot, EVENT_CODE, {})] if PLAN.event_slot in slots else []
    for at in range(0, len(states), size):
        part = states[at : at + size]
        way = {"passed": len(part), "way": way_of(part)} if len(part) > 1 else {}
        events.append((at + 1, "state", {"from": None, "to": part[-1], **way}))
    return FoundRow(
        number=number,
        rev=row.rev,
        stale=row.stale,
        closed=row.closed is not None,
        fields={name: getattr(row.record, name) for name in CORE_FIELDS},
        attributes={name: msgspec.json.decode(value) for name, value in row.record.attributes.items()},
        macs=[interface.mac for interface in row.record.interfaces],
        events=events,
    )


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(2, PLAN.closed_slot), st.integers(1, 6))
def test_a_right_row_has_no_differences_however_far_it_came_and_was_batched(number, end, batches):
    slots = range(end)
    assert differences(PLAN, number, slots, right(number, slots, batches=batches)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rev": 8}, "rev 8, 9 expected"),
        ({"stale": True}, "stale is True"),
        ({"closed": True}, "closed is True"),
        ({"macs": []}, "interfaces [], ["),
        ({"events": right(7).events[1:]}, "events [] of canary.note, [10] expected"),
        ({"events": [*right(7).events, (99, "lan.down", {})]}, "events ['lan.down'] that nobody sent"),
        ({"events": [(10, EVENT_CODE, {}), (1, "state", {"to": "online"}), (5, "state", {"to": "offline"})]}, "states"),
    ],
)
def test_each_difference_is_named(change, said):
    (sentence,) = differences(PLAN, 7, OPEN, structs.replace(right(7), **change))
    assert sentence.startswith("canary-0007: ")
    assert said in sentence


def test_content_that_differs_is_named_with_both_values():
    found = right(7)
    found.attributes["last"] = 3
    found.fields["model"] = "other"
    assert differences(PLAN, 7, OPEN, found) == [
        "canary-0007: model 'other', 'canary' expected",
        "canary-0007: attribute last 3, 9 expected",
    ]


def test_a_row_that_is_not_there_and_one_that_should_not_be():
    assert differences(PLAN, 7, OPEN, None) == ["canary-0007: no row, rev 9 expected"]
    assert differences(PLAN, 7, [], None) == []
    assert differences(PLAN, 7, [], right(7)) == ["canary-0007: a row, though none of its messages reached Kafka"]
