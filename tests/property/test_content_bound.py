"""What attributes a row may have in all: no history makes it grow over that, and what is refused costs nothing else."""

import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from dmpd.cloud_registry.asks import Asks
from dmpd.cloud_registry.decide import TooManyAtOnceError, decide
from dmpd.cloud_registry.gather import Step, Unit
from dmpd.model import content_size, limits
from dmpd.model.apply import apply_message
from dmpd.model.content_size import attributes_size, growth_refused, value_size
from dmpd.model.record import DeviceRecord, RecordPatch
from tests.support.messages import RAE, SESSION, change, checkpoint
from tests.support.rows import record_of

COUNT, SIZE = 6, 60
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([1e308, -1e23, 5e-324, 0.0, -0.0])
    # no surrogates: they are refused before
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aä\U0001f600", max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([f"name-{number}" for number in range(9)])
VALUES = st.sampled_from([Raw(b"1"), Raw(b'"xxxxxxxxxxxxxxxxxxxx"'), Raw(b"[1, [2, 3]]"), Raw(b'{"a":"\\u00e4"}')])
ATTRIBUTES = st.dictionaries(NAMES, VALUES, max_size=4)
CHECK = [HealthCheck.function_scoped_fixture]


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch):
    monkeypatch.setattr(limits, "ROW_ATTRIBUTES_MAX", COUNT)
    monkeypatch.setattr(limits, "ROW_ATTRIBUTES_BYTES_MAX", SIZE)
    monkeypatch.setattr(content_size, "FEW", 0)


def is_within(attributes):
    return len(attributes) <= COUNT and attributes_size(attributes) <= SIZE


@given(value=JSON)
def test_a_size_is_the_same_however_it_is_spelled_and_never_above_the_text(value):
    short = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    spelled = [short, json.dumps(value).encode(), json.dumps(value, indent=3).encode()]
    sizes = {value_size(Raw(text)) for text in spelled} | {value_size(Raw(written_out(value).encode()))}
    assert len(sizes) == 1
    assert sizes.pop() <= len(written_out(value).encode())


def written_out(value):
    """As PostgreSQL writes it, but for the spaces."""
    if isinstance(value, dict):
        members = ",".join(f"{written_out(name)}:{written_out(one)}" for name, one in value.items())
        return f"{{{members}}}"
    if isinstance(value, list):
        return f"[{','.join(map(written_out, value))}]"
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f").removeprefix("" if value else "-")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(
    ("number", "size"),
    [("7", 1), ("-120", 4), ("1.50", 4), ("1e308", 309), ("-1.5e-9", 13), ("0e9", 1), ("0e-3", 5), ("12.5e1", 3)],
)
def test_a_number_counts_as_it_is_written_out(number, size):
    assert value_size(Raw(number.encode())) == size
    assert attributes_size({"a": Raw(f"[{number},true]".encode())}) == 3 + 1 + 1 + size + 1 + 1


@settings(suppress_health_check=CHECK)
@given(before=ATTRIBUTES, steps=st.lists(st.tuples(ATTRIBUTES, st.sets(NAMES, max_size=2)), max_size=5))
def test_growth_is_refused_exactly_where_the_row_would_be_over_a_bound_and_larger(before, steps):
    for added, gone in steps:
        after = {name: value for name, value in before.items() if name not in gone} | added
        over_count = len(after) > COUNT and len(after) > len(before)
        size = attributes_size(after)
        over_size = size > SIZE and size > attributes_size(before)
        assert (growth_refused(before, after) is not None) == (over_count or over_size)
        before = after


def test_few_attributes_need_no_look_because_they_cannot_be_too_many(monkeypatch):
    monkeypatch.undo()
    largest = {f"{n:0128d}": "x" * (limits.ATTRIBUTE_VALUE_BYTES_MAX - 2) for n in range(content_size.FEW)}
    assert attributes_size(largest) <= limits.ROW_ATTRIBUTES_BYTES_MAX
    assert len(largest) < limits.ROW_ATTRIBUTES_MAX
    assert content_size.FEW > 20, "most rows"


def test_no_checkpoint_is_ever_over_a_bound(monkeypatch):
    monkeypatch.undo()
    assert limits.ATTRIBUTES_MAX <= limits.ROW_ATTRIBUTES_MAX
    assert limits.PAYLOAD_BYTES_MAX <= limits.ROW_ATTRIBUTES_BYTES_MAX, "no size is above its text"


CHANGES = st.tuples(ATTRIBUTES, st.sets(NAMES, max_size=3))


def changes(contents):
    return [
        change(rev, seq=rev, patch=RecordPatch(attributes=added), unset=tuple(gone - added.keys()))
        for rev, (added, gone) in enumerate(contents, start=2)
    ]


def decided(row, messages):
    steps = [Step(record_of(message, offset), message) for offset, message in enumerate(messages)]
    return decide(Unit(RAE, SESSION, steps), row, Asks())


@settings(suppress_health_check=CHECK)
@given(contents=st.lists(CHANGES, min_size=1, max_size=8))
def test_no_history_makes_a_row_grow_over_its_bound_and_a_checkpoint_heals(contents):
    row, _ = apply_message(None, checkpoint(1, DeviceRecord()))
    for message in changes(contents):
        before = row
        row, verdict = apply_message(row, message)
        if verdict.outcome == "refused":
            assert verdict.detail
            assert row is before, "nothing of it is taken"
        elif before.rev < message.rev - 1:
            assert row.stale, "something before it was refused"
        assert is_within(row.record.attributes)
    healed, verdict = apply_message(row, checkpoint(len(contents) + 1, DeviceRecord(attributes={"a": Raw(b"1")})))
    assert verdict.outcome == "applied"
    assert not healed.stale
    assert healed.record.attributes == {"a": Raw(b"1")}


@settings(suppress_health_check=CHECK)
@given(contents=st.lists(CHANGES, min_size=1, max_size=8))
def test_what_comes_together_is_refused_message_by_message(contents):
    messages = changes(contents)
    row, _ = apply_message(None, checkpoint(1, DeviceRecord()))
    single, refused = row, []
    for place, message in enumerate(messages):
        single, verdict = apply_message(single, message)
        refused += [place] if verdict.outcome == "refused" else []
    found = decided(row, messages)
    assert is_within(found.row.record.attributes)
    if found.refusals:  # taken apart: exactly as one by one
        assert [refusal.record.offset for refusal in found.refusals] == refused
        assert found.row == single
    elif not refused:
        assert found.row == single
    else:  # they went over the bound on their way, together they do not
        assert found.row.rev == messages[-1].rev


def test_many_that_are_refused_are_to_come_in_halves():
    """Judged one by one under a row's lock they could take longer than the database waits."""
    row, _ = apply_message(None, checkpoint(1, DeviceRecord()))
    greedy = changes([({f"{n}": Raw(b"1") for n in range(COUNT + 1)}, set())] * 65)
    assert len(decided(row, greedy[:64]).refusals) == 64
    with pytest.raises(TooManyAtOnceError):
        decided(row, greedy)


@settings(suppress_health_check=CHECK)
@given(attributes=st.dictionaries(NAMES, VALUES, min_size=COUNT + 1), gone=st.sets(NAMES, min_size=1, max_size=2))
def test_a_row_over_its_bound_may_shrink(attributes, gone):
    """One of before there was a bound."""
    assume(gone & attributes.keys())
    row, _ = apply_message(None, checkpoint(1, DeviceRecord()))
    row = type(row)(
        **{name: getattr(row, name) for name in row.__struct_fields__} | {"record": DeviceRecord(attributes=attributes)}
    )
    for said in (change(2, unset=tuple(gone)), change(2, patch=RecordPatch(state="online"))):
        after, verdict = apply_message(row, said)
        assert verdict.outcome == "applied"
        assert after.rev == 2
