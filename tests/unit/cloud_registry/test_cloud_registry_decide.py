"""What a unit that is refused as one costs: its messages one by one, as long as they are few."""

import pytest
from msgspec import Raw

from dmpd.cloud_registry import decide
from dmpd.cloud_registry.asks import Asks
from dmpd.cloud_registry.gather import Step, Unit
from dmpd.model.record import RecordPatch
from tests.support.messages import RAE, SESSION, change, checkpoint
from tests.support.rows import record_of


def unit_of(changes):
    """A device session that grows over its bound: each change brings 20 attributes of its own."""
    messages = [checkpoint(1)]
    for rev in range(2, changes + 2):
        attributes = {f"{rev}-{number}": Raw(b"1") for number in range(20)}
        messages.append(change(rev, patch=RecordPatch(attributes=attributes)))
    return Unit(RAE, SESSION, [Step(record_of(message, offset), message) for offset, message in enumerate(messages)])


def test_few_are_judged_one_by_one_and_many_are_given_in_halves():
    decision = decide.decide(unit_of(63), None, Asks())
    assert [refusal.record.offset for refusal in decision.refusals] == list(range(52, 64))
    assert len(decision.row.record.attributes) == 1020
    with pytest.raises(decide.TooManyAtOnceError):
        decide.decide(unit_of(64), None, Asks())
