"""Folding equals applying one by one, whatever the messages and the row they meet."""

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from dmpd.model.apply import apply, apply_message
from dmpd.model.fold import fold, fold_all, fold_of
from dmpd.model.record import DeviceRecord, RecordPatch
from tests.support.messages import RAE, SESSION, change, checkpoint, closed

NAMES = ("a", "b", "c")
EPOCHS = st.sampled_from([1, 2])
REVS = st.integers(1, 6)
VALUES = st.integers(0, 9)


def truth(epoch, rev):
    """The content that the RAE had at ``(epoch, rev)``: each revision changes one name, and now and then ends one."""
    content = {}
    for each in range(1, rev + 1):
        name = NAMES[(each * epoch) % 3]
        if each % 4 == 0:
            content.pop(name, None)
        else:
            content[name] = 100 * epoch + each
    return content


def raw(content):
    return {name: Raw(str(value).encode()) for name, value in content.items()}


def true_change(epoch, rev):
    name = NAMES[(rev * epoch) % 3]
    if rev % 4 == 0:
        return change(rev, epoch=epoch, seq=rev, unset=(name,))
    return change(rev, epoch=epoch, seq=rev, patch=RecordPatch(attributes=raw({name: 100 * epoch + rev})))


def true_checkpoint(epoch, rev):
    return checkpoint(rev, DeviceRecord(attributes=raw(truth(epoch, rev))), epoch=epoch)


MESSAGES = st.one_of(
    st.builds(true_change, EPOCHS, REVS),
    st.builds(true_change, EPOCHS, REVS),
    st.builds(true_checkpoint, EPOCHS, REVS),
    st.builds(lambda epoch, rev: closed(rev, epoch=epoch), EPOCHS, REVS),
)
HISTORIES = st.lists(MESSAGES, min_size=1, max_size=8)
ALIVE = st.lists(st.one_of(st.builds(true_change, EPOCHS, REVS), st.builds(true_checkpoint, EPOCHS, REVS)), max_size=3)


def one_by_one(row, messages):
    verdicts = []
    for message in messages:
        row, verdict = apply_message(row, message)
        verdicts.append(verdict)
    return row, verdicts


def assert_equal_rows(folded, single):
    assert (folded.epoch, folded.rev, folded.closed) == (single.epoch, single.rev, single.closed)
    assert folded.seq >= single.seq, "a roster counts from it"
    if folded.stale:
        assert single.stale, "the fold made a row stale that one by one is exact"
    if not single.stale:
        assert folded.record == single.record
        assert not folded.stale
    elif not folded.stale and folded.closed is None:  # it held a checkpoint that came too late one by one
        assert folded.record == DeviceRecord(attributes=raw(truth(folded.epoch, folded.rev)))
    assert folded.absent <= single.absent


@settings(max_examples=600, deadline=None)
@given(before=ALIVE, messages=HISTORIES)
def test_fold_equals_one_by_one(before, messages):
    row, _ = one_by_one(None, before)
    single, verdicts = one_by_one(row, messages)
    folded, verdict = apply(row, fold_all([fold_of(message) for message in messages]), rae=RAE, session=SESSION)
    assert_equal_rows(folded, single)
    assert verdict.forget == any(each.forget for each in verdicts)
    if verdicts[-1].epoch_raise is not None:
        assert verdict.epoch_raise == verdicts[-1].epoch_raise


@settings(max_examples=300, deadline=None)
@given(messages=st.lists(MESSAGES, min_size=3, max_size=8), cut=st.integers(1, 7))
def test_folds_of_folds_equal_the_fold(messages, cut):
    folds = [fold_of(message) for message in messages]
    cut = min(cut, len(folds) - 1)
    whole, _ = apply(None, reduce(fold, folds), rae=RAE, session=SESSION)
    parts, _ = apply(None, fold(fold_all(folds[:cut]), fold_all(folds[cut:])), rae=RAE, session=SESSION)
    assert (whole.epoch, whole.rev, whole.stale, whole.closed) == (parts.epoch, parts.rev, parts.stale, parts.closed)
    if not whole.stale:
        assert whole.record == parts.record


@settings(max_examples=300, deadline=None)
@given(messages=HISTORIES)
def test_row_that_is_not_stale_is_true_and_checkpoint_heals(messages):
    row, _ = one_by_one(None, messages)
    if row.closed is not None:
        return
    if not row.stale:
        assert row.record == DeviceRecord(attributes=raw(truth(row.epoch, row.rev)))
    healed, _ = apply_message(row, true_checkpoint(row.epoch, row.rev))
    assert not healed.stale
    assert not healed.absent
    assert healed.record == DeviceRecord(attributes=raw(truth(row.epoch, row.rev)))


@settings(max_examples=200, deadline=None)
@given(messages=HISTORIES)
def test_replay_of_everything_changes_nothing_but_heals(messages):
    row, _ = one_by_one(None, messages)
    again, _ = one_by_one(row, messages)
    assert (again.epoch, again.rev, again.closed) == (row.epoch, row.rev, row.closed)
    assert again.stale <= row.stale
    if not row.stale:
        assert again is row
