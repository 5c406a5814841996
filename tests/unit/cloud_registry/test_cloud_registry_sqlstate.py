"""The table of SQLSTATEs and what a piece of work's failures lead to: pure, code by code."""

import psycopg
import pytest

from dmpd.cloud_registry.sink import RowAppearedError
from dmpd.cloud_registry.sqlstate import CLASSES, STATES, meaning_of, sentence
from dmpd.cloud_registry.trial import Trial
from dmpd.runtime.database import DatabaseUnreachableError

MEANINGS = {
    "refused": ("22001", "22003", "22021", "22P02", "22P05", "23502", "23514", "54000", "54001", "08P01"),
    "slow": ("57014", "55P03"),
    "conflict": ("40001", "40003", "40P01"),
    "away": ("08000", "08006", "53100", "53200", "53300", "57P01", "57P02", "57P03", "57P05", "25P03"),
    "read_only": ("25006",),
    "plan": ("0A000", "26000", "42P05"),
    "doubtful": ("23503", "23505", "XX000", "XX001", "XXUUU", "58030", "55000", "25P02", "P0001", "F0000"),
    "halt": ("42501", "42P01", "42703", "42601"),
}


@pytest.mark.parametrize(("meaning", "state"), [(m, s) for m, states in MEANINGS.items() for s in states])
def test_each_code_means_what_the_table_says(meaning, state):
    error = type("Error", (psycopg.Error,), {"sqlstate": state})("first line\nsecond")
    assert meaning_of(error) == meaning
    assert sentence(error) == f"first line (SQLSTATE {state})"


def test_every_entry_of_the_table_is_tested():
    tested = {state for states in MEANINGS.values() for state in states}
    assert STATES.keys() <= tested
    assert CLASSES.keys() <= {state[:2] for state in tested}


def test_errors_without_a_code():
    assert meaning_of(psycopg.OperationalError("server closed the connection unexpectedly")) == "lost"
    assert meaning_of(psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")) == "refused"
    assert meaning_of(psycopg.InterfaceError("x")) == "doubtful"
    assert meaning_of(DatabaseUnreachableError("refused")) == "away"
    assert meaning_of(RowAppearedError()) == "again"
    assert sentence(RowAppearedError()) == "RowAppearedError"


def steps(meaning, *, is_single, probes=True, times=20):
    """What a piece of work that always fails so does, up to its blame."""
    trial, taken = Trial(is_single=is_single), []
    for _ in range(times):
        step = trial.failed(meaning)
        taken.append(step)
        if step == "probe" and probes:
            taken.append(trial.probed())
        if taken[-1] == "blame":
            break
    return taken


@pytest.mark.parametrize("is_single", [False, True])
@pytest.mark.parametrize("meaning", ["again", "conflict", "away", "read_only", "halt"])
def test_what_is_no_matter_of_data_is_tried_for_ever(meaning, is_single):
    assert "blame" not in steps(meaning, is_single=is_single)


def test_refused_data_is_taken_apart_at_once_and_given_up_after_a_probe():
    assert steps("refused", is_single=False) == ["blame"]
    assert steps("refused", is_single=True) == ["probe", "blame"]


def test_what_is_slow_twice_is_taken_apart_and_a_single_record_waits_for_ever():
    assert steps("slow", is_single=False) == ["wait", "blame"]
    assert set(steps("slow", is_single=True)) == {"wait"}


@pytest.mark.parametrize("meaning", ["doubtful", "lost"])
def test_doubts_count_only_while_another_write_succeeds(meaning):
    assert steps(meaning, is_single=False) == ["probe", "wait", "probe", "blame"]
    assert steps(meaning, is_single=True) == ["probe", "wait"] * 4 + ["probe", "blame"]
    for is_single in (False, True):
        assert set(steps(meaning, is_single=is_single, probes=False)) == {"probe"}


def test_a_stale_plan_is_worth_a_new_connection_once():
    assert steps("plan", is_single=False)[:1] == ["reconnect"]
    assert steps("plan", is_single=True)[1:] == ["probe", "wait"] * 4 + ["probe", "blame"]


def test_a_probe_after_another_failure_does_not_speak_of_a_refusal_before():
    trial = Trial(is_single=True)
    assert trial.failed("refused") == "probe"
    assert trial.failed("lost") == "probe"
    assert trial.probed() == "wait"
