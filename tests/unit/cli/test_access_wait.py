"""What ``dmpctl access`` waits for at the broker, and what it says when that does not come."""

from datetime import timedelta

import pytest

from dmpd.access import query
from dmpd.access.query import AuditLine, DaemonState
from dmpd.cli import access_show, access_wait
from tests.support.grants import T0, grant


def lines(*codes, **detail):
    return [
        AuditLine(at=T0 + timedelta(minutes=n), code=code, grant="aaaa", principal="u-a", actor="x", detail=detail)
        for n, code in enumerate(codes)
    ]


@pytest.mark.parametrize(
    ("codes", "is_there"),
    [
        ((), False),
        (("granted",), False),
        (("granted", "in force", "extended", "updated"), True),
        (("in force", "lost"), False),
        (("in force", "lost", "in force"), True),
        (("in force", "revoked"), True),
        (("in force", "revoked", "ended"), False),
    ],
)
def test_the_last_word_counts(codes, is_there):
    assert access_wait.in_force(lines(*codes)) is is_there
    assert access_wait.gone(lines(*codes)) is not is_there


@pytest.mark.parametrize(
    ("code", "end", "is_done"), [("updated", 60, True), ("in force", 60, True), ("updated", 59, False)]
)
def test_an_extension_is_done_when_the_rule_has_the_new_end(code, end, is_done):
    done = access_wait.extended(grant(end=60))
    assert done(lines("granted", code, ends_at=grant(end=end).ends_at.isoformat())) is is_done
    assert not done(lines("granted", "extended", ends_at=grant(end=60).ends_at.isoformat()))


def test_since_when_is_since_it_was_last_lost(monkeypatch):
    monkeypatch.setattr(query, "audit", lambda *_, **__: lines("in force", "lost", "in force", "updated"))
    assert access_show._in_broker(None, grant("aaaa")).endswith("g-aaaa is in the broker since 2026-11-28T12:02:00Z")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "no dmpd access was ever at work on this database: start it"),
        (DaemonState(silence_s=61, problem="", detail={}), "last heard of 61 s ago: is it running?"),
        (DaemonState(silence_s=1, problem="broker: refused", detail={}), "dmpd access says: broker: refused"),
        (DaemonState(silence_s=1, problem="", detail={}), "dmpd access says: all is well; try again"),
    ],
)
def test_a_rule_that_is_missing_is_explained_by_the_daemon(monkeypatch, state, said):
    monkeypatch.setattr(query, "audit", lambda *_, **__: lines("granted"))
    monkeypatch.setattr(query, "daemon", lambda _: state)
    sentence = access_show._in_broker(None, grant("aaaa"))
    assert sentence.startswith("its rule g-aaaa is missing in the broker: ")
    assert sentence.endswith(said)
