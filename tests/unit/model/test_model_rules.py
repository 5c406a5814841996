"""Single rules of the model that no comparison of a fold with its messages can show, both sides having them."""

from datetime import timedelta

import msgspec
import pytest

from dmpd.model.apply import DeviceRow, apply
from dmpd.model.fold import fold_all, fold_of
from dmpd.model.messages import Status
from dmpd.model.rae import apply_status
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, closed


def status(run=1, *, epoch=EPOCH, state="ready"):
    return Status(v=1, rae=RAE, session="rae", at=AT, epoch=epoch, state=state, run=run, seq_high=0)


def later(minutes):
    return AT + timedelta(minutes=minutes)


@pytest.mark.parametrize("retained", [False, True])
def test_a_retained_copy_of_a_former_life_asks_for_no_other_epoch(retained):
    row, _ = apply_status(None, status(), received_at=AT, retained=False)
    after, verdict = apply_status(row, status(epoch=EPOCH - 1), received_at=later(1), retained=retained)
    assert after is row
    assert verdict.outcome == "lower_epoch"
    assert (verdict.epoch_raise is None) == retained, "a broker keeps it for years, its RAE has long moved on"


def test_a_rae_is_never_heard_of_earlier_than_it_was():
    row, _ = apply_status(None, status(), received_at=later(5), retained=False)
    for minutes, heard in ((3, 5), (5, 5), (7, 7)):
        row, verdict = apply_status(row, status(run=minutes), received_at=later(minutes), retained=False)
        assert (verdict.outcome, row.heard_at, row.status.run) == ("applied", later(heard), minutes)
    row, _ = apply_status(row, status(run=9), received_at=later(9), retained=True)
    assert (row.heard_at, row.status.run) == (later(7), 9), "a retained copy times nothing"


@pytest.mark.parametrize(
    "epoch",
    [EPOCH - 1, EPOCH, EPOCH + 1],
    ids=["the end's is the later epoch", "one epoch", "the row's is the later epoch"],
)
def test_a_tombstone_counts_outbox_rows_of_its_own_epoch(epoch):
    for ends, stored in ((5, 900), (901, 900)):
        row = DeviceRow(rae=RAE, session=SESSION, epoch=epoch, rev=9, seq=stored, changed_at=AT)
        after, _ = apply(row, fold_of(closed(3, epoch=EPOCH, seq=ends)), rae=RAE, session=SESSION)
        expected = {EPOCH - 1: ends, EPOCH: max(ends, stored), EPOCH + 1: stored}[epoch]
        assert (after.closed, after.epoch, after.seq) == ("left", max(epoch, EPOCH), expected)


def test_what_ends_with_its_session_ended_when_the_end_was_said():
    messages = [checkpoint(1), change(2), closed(2)]
    timed = [msgspec.structs.replace(one, at=later(minutes)) for minutes, one in enumerate(messages)]
    row, _ = apply(None, fold_all(map(fold_of, timed)), rae=RAE, session=SESSION)
    assert (row.closed, row.changed_at) == ("left", later(2))
    ahead = [timed[2], msgspec.structs.replace(change(9), at=later(7))]
    row, _ = apply(None, fold_all(map(fold_of, ahead)), rae=RAE, session=SESSION)
    assert row.closed == "left", "terminal, whatever comes behind it"
