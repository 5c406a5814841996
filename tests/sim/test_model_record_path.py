"""The record path under faults: random histories, and the histories that broke earlier rules, by name.

Each rule is also taken away: a world that cannot go wrong would prove nothing.
"""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.model import apply as apply_rules
from dmpd.model.apply import apply, apply_message
from dmpd.model.epochs import is_raise_obeyed, next_epoch
from dmpd.model.fold import fold, fold_all, fold_of
from dmpd.model.messages import Roster, Status
from dmpd.model.rae import apply_roster, apply_status, is_reachable
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, closed, session_id
from tests.support.record_path import Rules, World, WrongError, random_moves, record_of

MOVES = st.lists(st.tuples(st.sampled_from(World.MOVES), st.integers(0, 7), st.integers(0, 7)), max_size=40)
SEEDS_TO_CATCH = 3_000
"""Every broken rule below shows within a few hundred histories."""


@settings(max_examples=400, deadline=None)
@given(moves=MOVES)
def test_cloud_equals_edge_after_any_history(moves):
    World().run([("onboard", 0, 0), *moves])


def test_seeded_histories():
    for seed in range(1_500):
        World().run(random_moves(seed))


@pytest.mark.slow
def test_many_seeded_histories():
    for seed in range(1_500, 40_000):
        World().run(random_moves(seed))


# Rules taken away, one at a time.


def fold_without_gap(a, b):
    return msgspec.structs.replace(fold(a, b), gap=False, tail=None)


def fold_forgets_close(a, b):
    return b if a.closed is not None else fold(a, b)


def fold_drops_equal_checkpoint(a, b):
    is_equal = (a.epoch, a.rev) == (b.epoch, b.rev) and a.closed is None and b.closed is None
    return a if is_equal else fold(a, b)


def apply_not_sticky(row, one, **names):
    return apply(row if row is None else msgspec.structs.replace(row, stale=False), one, **names)


def apply_without_gap(row, one, **names):
    reaches = row is not None and row.epoch == one.epoch and row.rev < one.base
    return apply(row, msgspec.structs.replace(one, base=row.rev) if reaches else one, **names)


def apply_epoch_exact(row, one, **names):
    after, verdict = apply(row, one, **names)
    if row is not None and after.epoch > row.epoch and not one.replace:
        after = msgspec.structs.replace(after, stale=row.stale)
    return after, verdict


def apply_old_revisions(row, one, **names):
    is_old = row is not None and row.closed is None and one.epoch == row.epoch and one.rev < row.rev
    return apply(msgspec.structs.replace(row, rev=one.base) if is_old else row, one, **names)


def apply_lower_epochs(row, one, **names):
    is_lower = row is not None and one.epoch < row.epoch
    return apply(msgspec.structs.replace(row, epoch=one.epoch, rev=one.base) if is_lower else row, one, **names)


def apply_never_heals_equal(row, one, **names):
    is_equal = row is not None and row.closed is None and (row.epoch, row.rev) == (one.epoch, one.rev)
    return (
        (row, apply_rules.Verdict(outcome="dropped")) if is_equal and one.closed is None else apply(row, one, **names)
    )


def apply_closed_is_not_terminal(row, one, **names):
    return apply(None if row is not None and row.closed is not None and one.closed is None else row, one, **names)


def apply_closed_by_order(row, one, **names):
    if one.closed is not None and row is not None and (one.epoch, one.rev) < (row.epoch, row.rev):
        return row, apply_rules.Verdict(outcome="dropped")
    return apply(row, one, **names)


def apply_keeps_absent(row, one, **names):
    after, verdict = apply(row, one, **names)
    if row is not None and row.absent and after.closed is None:
        after = msgspec.structs.replace(after, absent=True)
    return after, verdict


def apply_absent_not_healed_by_equal(row, one, **names):
    is_equal = row is not None and row.closed is None and (row.epoch, row.rev) == (one.epoch, one.rev)
    if is_equal and one.closed is None and not row.stale:
        return row, apply_rules.Verdict(outcome="dropped")
    return apply(row, one, **names)


def apply_raises_nothing(row, one, **names):
    after, verdict = apply(row, one, **names)
    return after, msgspec.structs.replace(verdict, epoch_raise=None)


def status_raises_nothing(row, status, **how):
    after, verdict = apply_status(row, status, **how)
    return after, msgspec.structs.replace(verdict, epoch_raise=None)


def roster_says_nothing(row, roster):
    return row


def roster_whatever_is_newer(row, roster):
    """Without the comparison of ``(epoch, seq)``: an old roster counts as much as a new one."""
    return apply_roster(msgspec.structs.replace(row, epoch=1, seq=0), roster) if row.closed is None else row


BROKEN = {
    "gap rule of the fold": Rules(fold=fold_without_gap),
    "gap rule of the row": Rules(apply=apply_without_gap),
    "sticky stale": Rules(apply=apply_not_sticky),
    "another epoch is stale": Rules(apply=apply_epoch_exact),
    "guard against zombies": Rules(apply=apply_old_revisions),
    "lower epoch dropped": Rules(apply=apply_lower_epochs),
    "equal-rev checkpoint while stale": Rules(apply=apply_never_heals_equal),
    "equal-rev checkpoint while absent": Rules(apply=apply_absent_not_healed_by_equal),
    "closed terminal": Rules(apply=apply_closed_is_not_terminal),
    "closed whatever its epoch": Rules(apply=apply_closed_by_order, apply_roster=roster_says_nothing),
    "closed absorbs its fold": Rules(fold=fold_forgets_close, apply_roster=roster_says_nothing),
    "a later message clears absent": Rules(apply=apply_keeps_absent),
    "epoch.raise": Rules(apply=apply_raises_nothing, apply_status=status_raises_nothing),
    "forget": Rules(obeys_forget=False),
    "roster": Rules(apply_roster=roster_says_nothing),
    "new epoch per boot": Rules(epoch_per_boot=False),
    "restamping": Rules(restamps=False),
}


@pytest.mark.parametrize("name", BROKEN)
def test_rule_taken_away_is_caught(name):
    for seed in range(SEEDS_TO_CATCH):
        try:
            World(BROKEN[name]).run(random_moves(seed))
        except WrongError:
            return
    pytest.fail(f"nothing went wrong without the rule '{name}'")


# The histories that broke earlier rules.

LATER = EPOCH + 100_000


def rows_of(*messages):
    """One row per way of reading ``messages``: one by one, and as one fold."""
    row = None
    for message in messages:
        row, _ = apply_message(row, message)
    folded, _ = apply(None, fold_all([fold_of(message) for message in messages]), rae=RAE, session=SESSION)
    return row, folded


def values(**content):
    return record_of(content)


def sets(rev, **content):
    return change(rev, patch=msgspec.structs.replace(change(1).patch, attributes=record_of(content).attributes))


def in_epoch(message, epoch):
    return msgspec.structs.replace(message, epoch=epoch)


def roster(seq_high, *sessions, epoch=EPOCH):
    last = session_id(0xFFFF_FFFF)
    return Roster(
        v=1,
        rae=RAE,
        session="rae",
        at=AT,
        epoch=epoch,
        first=session_id(0),
        last=last,
        sessions=sessions,
        seq_high=seq_high,
    )


def status(state, run=1, epoch=EPOCH):
    return Status(v=1, rae=RAE, session="rae", at=AT, epoch=epoch, state=state, run=run, seq_high=0)


def test_regression_restored_image_never_passes_for_the_lost_change():
    """Rev 2 reached the database, the image of rev 1 returns and makes another rev 2 and 3."""
    row, folded = rows_of(checkpoint(1, values(x=1)), sets(2, x=2), in_epoch(sets(3, y=3), LATER))
    assert row.stale
    assert folded.stale
    row, _ = apply_message(row, in_epoch(checkpoint(3, values(x=1, y=3)), LATER))
    assert not row.stale
    assert row.record == values(x=1, y=3)


def test_regression_first_row_of_an_epoch_leaves_nothing_stale():
    row, folded = rows_of(checkpoint(5, values(x=1)), in_epoch(checkpoint(6, values(x=2)), LATER))
    assert not row.stale
    assert not folded.stale


def test_regression_replaying_consumer_raises_an_epoch_once():
    """Each replay asks again; the RAE rises while what was refused is its epoch, and not once per restart."""
    own, above, asked = EPOCH, LATER, 0
    row, _ = apply_message(None, checkpoint(1, epoch=above))
    for _ in range(3):
        _, verdict = apply_message(row, checkpoint(1, epoch=EPOCH))
        asked += 1
        assert (verdict.epoch_raise.refused, verdict.epoch_raise.above) == (EPOCH, above)
        if is_raise_obeyed(own, refused=verdict.epoch_raise.refused, above=verdict.epoch_raise.above):
            own = next_epoch(above, 0, 1)
    assert own == above + 2
    assert asked == 3


def test_regression_close_under_a_low_epoch_ends_the_session():
    row, folded = rows_of(checkpoint(5, epoch=LATER), closed(2, epoch=7))
    assert row.closed == folded.closed == "left"
    assert (row.epoch, row.rev) == (folded.epoch, folded.rev) == (LATER, 5)


def test_regression_higher_epoch_does_not_discard_a_close():
    row, folded = rows_of(closed(2), change(1, epoch=LATER))
    assert row.closed == folded.closed == "left"


def test_regression_session_that_ended_is_forgotten_by_the_edge():
    """The identity file still names it: its checkpoints meet the tombstone, and the RAE is told."""
    row, _ = apply_message(None, closed(2))
    _, told = apply_message(row, change(3, epoch=LATER))
    assert (told.outcome, told.forget) == ("tombstone", False)
    _, told = apply_message(row, checkpoint(3, epoch=LATER))
    assert (told.outcome, told.forget) == ("tombstone", True)
    _, told = apply(None, fold_all([fold_of(closed(2)), fold_of(checkpoint(3))]), rae=RAE, session=SESSION)
    assert told.forget


def test_regression_lost_roster_is_made_good_by_the_next():
    row, _ = apply_message(None, checkpoint(1, seq=1))
    assert apply_roster(row, roster(2)).absent
    assert not apply_roster(row, roster(2, SESSION)).absent


def test_regression_checkpoint_of_equal_rev_clears_absent():
    row, _ = apply_message(None, checkpoint(1, seq=1))
    absent = apply_roster(row, roster(2))
    row, verdict = apply_message(absent, checkpoint(1))
    assert verdict.outcome == "applied"
    assert not row.absent


def test_regression_run_that_was_lost_stays_lost():
    row, _ = apply_status(None, status("ready"), received_at=AT, retained=False)
    row, _ = apply_status(row, status("lost"), received_at=AT, retained=False)
    row, verdict = apply_status(row, status("ready"), received_at=AT, retained=False)
    assert (row.status.state, verdict.outcome) == ("lost", "dropped")
    row, _ = apply_status(row, status("ready", run=2), received_at=AT, retained=False)
    assert row.status.state == "ready"
    row, _ = apply_status(row, status("lost", run=1), received_at=AT, retained=False)
    assert row.status.state == "ready"


@pytest.mark.parametrize("hours", [24 * 365, -1])
def test_regression_clock_of_the_rae_times_nothing(hours):
    wrong = msgspec.structs.replace(status("ready"), at=AT + timedelta(hours=hours))
    row, _ = apply_status(None, wrong, received_at=AT, retained=False)
    assert is_reachable(row.status.state, row.heard_at, AT + timedelta(seconds=180))
    assert not is_reachable(row.status.state, row.heard_at, AT + timedelta(seconds=181))


def test_regression_gap_and_its_healing_checkpoint_in_one_batch():
    before, _ = apply_message(None, checkpoint(1, values(x=1)))
    folds = fold_all([fold_of(sets(3, y=3)), fold_of(checkpoint(3, values(x=2, y=3)))])
    row, _ = apply(before, folds, rae=RAE, session=SESSION)
    assert not row.stale
    assert row.record == values(x=2, y=3)


def test_regression_redelivered_change_beside_a_new_one_is_no_gap():
    """The 30 s rule sends the first unstored row alone again: rev 2 and rev 4 in one batch, the row is at 3."""
    before, _ = rows_of(checkpoint(1, values(x=1)), sets(2, x=2), sets(3, x=3))
    row, _ = apply(before, fold_all([fold_of(sets(2, x=2)), fold_of(sets(4, y=4))]), rae=RAE, session=SESSION)
    assert not row.stale
    assert row.record == values(x=3, y=4)


def test_change_of_an_unknown_session_is_a_stale_skeleton():
    row, verdict = apply_message(None, sets(1, x=1))
    assert verdict.outcome == "applied"
    assert row.stale


def test_checkpoint_that_says_what_the_row_says_writes_nothing():
    row, _ = apply_message(None, checkpoint(1, values(x=1)))
    same, verdict = apply_message(row, checkpoint(1, values(x=1)))
    assert same is row
    assert verdict.outcome == "dropped"
    different, _ = apply_message(row, checkpoint(1, values(x=2)))
    assert different.record == values(x=2)


def test_retained_status_refreshes_no_time():
    row, _ = apply_status(None, status("ready"), received_at=AT, retained=True)
    assert row.heard_at is None
    row, _ = apply_status(row, status("ready"), received_at=AT, retained=False)
    later = AT + timedelta(hours=1)
    row, _ = apply_status(row, status("ready", run=2), received_at=later, retained=True)
    assert (row.heard_at, row.status.run) == (AT, 2)
    assert not is_reachable(row.status.state, row.heard_at, later)


def test_roster_judges_its_range_and_what_is_older_only():
    row, _ = apply_message(None, checkpoint(1, seq=5))
    assert not apply_roster(row, roster(5)).absent
    assert apply_roster(row, roster(6)).absent
    outside = msgspec.structs.replace(roster(6), first=session_id(2))
    assert not apply_roster(row, outside).absent
    assert not apply_roster(row, roster(6, epoch=EPOCH - 1)).absent
    assert apply_roster(row, roster(0, epoch=LATER)).absent
