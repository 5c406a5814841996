"""What comes thick gathers for a moment; what comes alone, and what comes in bulk, does not wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream import intake as intake_module
from dmpd.stream.gathering import BULK_RECORDS, PAUSE_S, Gathering
from dmpd.stream.intake import Intake
from dmpd.stream.settings import StreamSettings


def test_a_record_that_comes_alone_does_not_wait():
    gathering = Gathering()
    for now_s in (10.0, 11.0, 12.0):
        assert gathering.wait_s(now_s) == 0
        gathering.took(now_s, 1, waited=False)
    assert gathering.wait_s(12.0) == 0


def test_records_that_follow_one_another_closely_are_taken_together():
    gathering = Gathering()
    gathering.took(10.0, 1, waited=False)
    gathering.took(10.0 + PAUSE_S / 2, 1, waited=False)
    assert gathering.wait_s(10.0 + PAUSE_S / 2) == pytest.approx(PAUSE_S)
    assert gathering.wait_s(10.0 + 2 * PAUSE_S) == 0  # the turn itself took as long
    gathering.took(10.0 + 2 * PAUSE_S, 3, waited=True)
    assert gathering.wait_s(10.0 + 2 * PAUSE_S) > 0


def test_a_wait_in_vain_is_the_last():
    gathering = Gathering()
    gathering.took(10.0, 1, waited=False)
    gathering.took(10.0, 1, waited=False)
    gathering.took(10.0 + PAUSE_S, 0, waited=True)
    assert gathering.wait_s(10.0 + PAUSE_S) == 0


def test_a_backlog_does_not_wait():
    gathering = Gathering()
    for _ in range(3):
        gathering.took(10.0, BULK_RECORDS, waited=False)
    assert gathering.wait_s(10.0) == 0


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 2 * BULK_RECORDS))))
def test_no_wait_is_longer_than_the_pause(turns):
    gathering, now_s = Gathering(), 10.0
    for passed_s, records in turns:
        now_s += passed_s
        wait_s = gathering.wait_s(now_s)
        assert 0 <= wait_s <= PAUSE_S + 1e-9
        now_s += wait_s
        gathering.took(now_s, records, waited=wait_s > 0)


class Thick:
    """A client that always has one record more; ``polls`` and ``consumes`` are what it was asked."""

    def __init__(self):
        self.polls = self.consumes = 0

    def poll(self, timeout_s):
        self.polls += 1

    def consume(self, records_max):
        self.consumes += 1
        return []


def test_while_they_are_thick_the_client_is_asked_once_in_a_turn_after_a_pause(monkeypatch):
    slept_s = []
    monkeypatch.setattr(intake_module.time, "sleep", slept_s.append)
    intake, client = Intake({}, None, StreamSettings()), Thick()
    monkeypatch.setattr(intake._gathering, "wait_s", lambda _: PAUSE_S)
    assert intake.fetch(client, 0.05, is_draining=False) == []
    assert (slept_s, client.consumes, client.polls) == ([PAUSE_S], 1, 1)  # in vain: then it waits for the first


def test_a_turn_that_may_not_wait_does_not(monkeypatch):
    """All is paused, or a drain: the loop has waited for the workers already."""
    monkeypatch.setattr(intake_module.time, "sleep", None)
    intake = Intake({}, None, StreamSettings())
    monkeypatch.setattr(intake._gathering, "wait_s", lambda _: PAUSE_S)
    assert intake.fetch(Thick(), 0.0, is_draining=True) == []
