"""Grants in a real database: what is granted, refused, ended, queued, and that every step is in the audit."""

import threading
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

from dmpd.access import audit, exchange, query, store
from dmpd.access.store import HeldByOthersError, Wish
from dmpd.cloud_registry import migrate, retention
from dmpd.model.grant_request import GrantRefusedError
from dmpd.runtime.database import connect
from tests.support.grants import S1, S2
from tests.support.rows import migrated

pytestmark = pytest.mark.services

HOURS_MAX = 720.0


@pytest.fixture
def connection(postgres):
    with migrated(postgres) as found:
        found.answer_timeout_s = 60
        yield found


def wish(user="u-a", *, rae="R1", session=S1, level="read", hours=2.0, **more):
    fields = {"lasts": timedelta(hours=hours), "by": "op-test", "why": "demo"} | more
    return Wish(user=user, rae=rae, session=session, level=level, **fields)


def put(connection, *args, wait=False, **more):
    return store.grant(connection, wish(*args, **more), hours_max=HOURS_MAX, wait=wait)


def codes(connection, grant_id):
    return [
        row[0]
        for row in connection.execute(
            "SELECT code FROM access_event WHERE grant_id = %s ORDER BY at, id", (grant_id,)
        ).fetchall()
    ]


def test_a_grant_is_in_the_next_snapshot_and_goes_when_revoked(connection):
    before, _ = exchange.version(connection)
    made = put(connection, level="command")
    found = exchange.snapshot(connection)
    assert (found.grants, found.users) == ([made], {"u-a"})
    assert found.version == before + 1 == exchange.version(connection)[0]
    assert made.starts_at <= found.now < made.ends_at == made.starts_at + timedelta(hours=2)
    ended = store.revoke(connection, made.id[:6], by="op-else")
    assert ended.ended_at is not None
    assert exchange.snapshot(connection).grants == []
    assert exchange.snapshot(connection).users == {"u-a"}, "he keeps his name"
    assert codes(connection, made.id) == ["granted", "revoked"]
    with pytest.raises(GrantRefusedError, match=f"{made.id} ended at"):
        store.revoke(connection, made.id, by="op-else")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"user": "rae-1"}, "user: expected u-NAME"),
        ({"user": "u-"}, "user: expected u-NAME"),
        ({"user": "u-a'; DROP TABLE rae; --"}, "user: expected u-NAME"),
        ({"user": "u-a/#"}, "user: expected u-NAME"),
        ({"user": "u-a\0"}, r"user: expected u-NAME.*'u-a\\x00'"),
        ({"rae": "+"}, "rae: expected the serial"),
        ({"rae": "u-b"}, "rae: expected the serial"),
        ({"rae": "admin"}, "rae: expected the serial"),
        ({"session": "#"}, "session: expected the id"),
        ({"session": S1.upper()}, "session: expected the id"),
        ({"session": "rae", "level": "exclusive"}, "cannot be commanded exclusively"),
        ({"hours": -1}, "it would end .* before it starts"),
        ({"hours": 0}, "it would end .* before it starts"),
        ({"hours": 721}, "expected at most 720 hours"),
        ({"starts_at": datetime(2020, 1, 1, tzinfo=UTC)}, "it would have ended already"),
        ({"why": ""}, "why: expected 1 to 500"),
        ({"why": "a\nb"}, "why: expected 1 to 500"),
        ({"by": "op-" + "x" * 70}, "by: expected 1 to 64"),
    ],
)
def test_bad_input_changes_nothing_and_says_what_was_expected(connection, more, said):
    before = exchange.version(connection)[0]
    with pytest.raises(GrantRefusedError, match=said):
        put(connection, **more)
    assert exchange.version(connection)[0] == before
    assert connection.execute("SELECT count(*) FROM access_event").fetchone() == (0,)


def test_extend_ends_later_never_sooner_and_not_beyond_the_maximum(connection):
    made = put(connection)
    later = store.extend(connection, made.id, by="op-test", hours_max=HOURS_MAX, lasts=timedelta(hours=1))
    assert later.ends_at == made.ends_at + timedelta(hours=1)
    assert exchange.snapshot(connection).grants == [later]
    with pytest.raises(GrantRefusedError, match="expected a later end"):
        store.extend(connection, made.id, by="op-test", hours_max=HOURS_MAX, ends_at=made.ends_at)
    with pytest.raises(GrantRefusedError, match="expected at most 720 hours"):
        store.extend(connection, made.id, by="op-test", hours_max=HOURS_MAX, lasts=timedelta(hours=720))
    with pytest.raises(GrantRefusedError, match="there is no grant '0000'"):
        store.extend(connection, "0000", by="op-test", hours_max=HOURS_MAX, lasts=timedelta(hours=1))
    assert exchange.snapshot(connection).grants == [later]


def test_one_commander_at_a_time_and_a_fair_queue(connection):
    first = put(connection, "u-a", level="exclusive")
    with pytest.raises(HeldByOthersError, match=f"u-a holds R1/{S1} from .* until .* \\(grant {first.id}\\)"):
        put(connection, "u-b", level="exclusive")
    put(connection, "u-b", level="exclusive", session=S2)
    second = put(connection, "u-b", level="exclusive", wait=True)
    third = put(connection, "u-c", level="exclusive", wait=True, hours=1)
    assert (second.queued, second.starts_at) == (True, first.ends_at)
    assert (third.queued, third.starts_at) == (True, second.ends_at)
    with pytest.raises(HeldByOthersError, match="u-b holds"):
        store.extend(connection, first.id, by="op-a", hours_max=HOURS_MAX, lasts=timedelta(minutes=1))
    store.revoke(connection, first.id, by="op-a")
    live = {one.id: one for one in exchange.snapshot(connection).grants}
    assert live[second.id].starts_at < live[second.id].ends_at == live[third.id].starts_at
    assert live[second.id].is_in_force(exchange.version(connection)[1])
    assert codes(connection, second.id) == ["queued", "moved up"]


def test_a_place_in_the_queue_ends_before_the_maximum_too(connection):
    put(connection, "u-a", level="exclusive", hours=700)
    before = exchange.snapshot(connection)
    with pytest.raises(GrantRefusedError, match="expected at most 720 hours"):
        put(connection, "u-b", level="exclusive", hours=21, wait=True)
    assert exchange.snapshot(connection).grants == before.grants


def test_what_was_in_force_at_an_instant_is_found(connection):
    """Half open, as everywhere; one that was revoked until then."""
    one = put(connection, "u-a", hours=2)
    other = put(connection, "u-b", rae="R2", hours=3)
    revoked = store.revoke(connection, other.id, by="op-test")

    def at(instant, **which):
        return [found.id for found in query.grants(connection, at=instant, **which)]

    moment = timedelta(microseconds=1)
    assert at(one.starts_at - moment) == at(one.ends_at) == at(one.ends_at + timedelta(minutes=30)) == []
    assert at(one.starts_at) == at(one.ends_at - moment) == at(revoked.ended_at) == [one.id]
    assert at(revoked.ended_at - moment) == [one.id, other.id]
    assert at(revoked.ended_at - moment, user="u-b") == at(revoked.ended_at - moment, rae="R2") == [other.id]


def test_two_who_ask_at_once_do_not_both_get_it(postgres, connection):
    """Eight at a time, each with a connection of its own: one holds it, the others stand in the order of asking."""
    found, errors = [], []

    def ask(number):
        try:
            with closing(connect(postgres, application="test")) as own:
                own.autocommit = True
                found.append(put(own, f"u-{number}", level="exclusive", wait=True, hours=1))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    ordered = sorted(found, key=lambda one: one.created_at)
    assert [one.queued for one in ordered] == [False] + [True] * 7
    assert [one.starts_at for one in ordered[1:]] == [one.ends_at for one in ordered[:-1]]


def test_kicks_and_events_are_handed_over_once(connection):
    exchange.ask_kick(connection, "R1", by="op-test")
    [kick] = exchange.snapshot(connection).kicks
    assert (kick.principal, kick.asked_by) == ("R1", "op-test")
    event = audit.new_event(exchange.version(connection)[1], "kicked", "svc-access", principal="R1")
    audit.write_events(connection, [event])
    audit.write_events(connection, [event])
    exchange.kicked(connection, [kick.id])
    assert exchange.snapshot(connection).kicks == []
    assert connection.execute("SELECT code, principal FROM access_event").fetchall() == [("kicked", "R1")]


def test_the_daemons_presence_is_one_row(connection):
    exchange.write_presence(connection, "svc-access", "", {"rules": 1}, is_recorded=True)
    exchange.write_presence(connection, "svc-access", "no broker", {"rules": 2}, is_recorded=False)
    assert connection.execute("SELECT name, problem, detail FROM access_daemon").fetchall() == [
        ("svc-access", "no broker", {"rules": 2})
    ]


def test_the_last_words_are_of_what_holds_and_of_what_ended_since_all_was_written(connection):
    def over(name, *codes, hours=1, since=2, revoked=None):
        connection.execute(
            "INSERT INTO access_grant SELECT %s, 'u-a', 'R1', NULL, 'read', now() - %s * h, now() - %s * h, now(),"
            " 'op', 'x', false, now() - %s * h, NULL FROM (SELECT INTERVAL '1 hour') AS one(h)",
            (name, since, hours, revoked),
        )
        at = exchange.version(connection)[1] - timedelta(hours=since)
        said = [audit.new_event(at + timedelta(seconds=n), code, "x", grant=name) for n, code in enumerate(codes)]
        audit.write_events(connection, said)

    over("unended", "in force")
    over("untold")
    over("ended", "in force", "ended")
    over("again", "in force", "lost", "in force")
    over("lost", "in force", "lost")
    over("neverbegun", since=2, revoked=2)
    over("revoked", "in force", hours=-9, revoked=1)
    over("old", "in force", hours=5, since=6)
    over("live", "in force", hours=-1)
    over("livelost", "in force", "lost", hours=-1)
    exchange.write_presence(connection, "svc-access", "", {}, is_recorded=True)
    connection.execute("UPDATE access_daemon SET recorded_until = now() - INTERVAL '3 hours'")
    exchange.write_presence(connection, "svc-access", "", {}, is_recorded=False)
    found = audit.last_words(connection, "svc-access")
    assert set(found.unended) == {"unended", "untold", "again", "revoked"}
    assert found.unended["untold"] == "u-a"
    assert found.in_force == {"unended", "again", "revoked", "live"}
    assert audit.last_words(connection, "svc-other").in_force >= {"live"}, "one that was never at work"


def test_daemon_and_operator_get_what_they_need_and_no_more(connection):
    """The daemon cannot grant, the operator cannot forge what the daemon says, nobody rewrites the audit.

    Who removes what is old can neither add nor change, and does not grant.
    """
    roles = ("dmpd_access", "dmpd_operator", "dmpd_read", "dmpd_registry")
    with ExitStack() as cleanup:
        for role in roles:
            connection.execute(f"CREATE ROLE {role}")
            cleanup.callback(connection.execute, f"DROP ROLE {role}")
            cleanup.callback(connection.execute, f"DROP OWNED BY {role}")
        script = files("dmpd.cloud_registry").joinpath("schema", "roles_access.sql").read_text()
        for statement in migrate.statements(script):
            connection.execute(statement)
        made = put(connection)
        event = audit.new_event(made.created_at, "in force", "svc-access", grant=made.id)
        works = {
            "dmpd_access": [
                lambda: exchange.snapshot(connection),
                lambda: audit.write_events(connection, [event]),
                lambda: exchange.kicked(connection, ["none"]),
                lambda: exchange.write_presence(connection, "svc-access", "", {}, is_recorded=True),
                lambda: audit.last_words(connection, "svc-access"),
            ],
            "dmpd_operator": [
                lambda: store.revoke(connection, put(connection).id, by="op"),
                lambda: exchange.ask_kick(connection, "R1", by="op"),
            ],
            "dmpd_registry": [
                lambda: connection.execute(retention._OLD_GRANTS, (1, 1)),
                lambda: connection.execute(retention._OLD_AUDIT, (1, 1)),
            ],
        }
        for role, acts in works.items():
            connection.execute(f"SET ROLE {role}")
            for act in acts:
                act()
            connection.execute("RESET ROLE")

        def has(*what):
            return connection.execute("SELECT has_table_privilege(%s, %s, %s)", what).fetchone()[0]

        for role in roles:
            may = [one for one in ("INSERT", "UPDATE", "DELETE") if has(role, "access_event", one)]
            assert may == {"dmpd_read": [], "dmpd_registry": ["DELETE"]}.get(role, ["INSERT"])
        for role, table in (
            ("dmpd_access", "access_grant"),
            ("dmpd_operator", "access_daemon"),
            ("dmpd_registry", "access_grant"),
        ):
            assert not has(role, table, "INSERT")
            assert not has(role, table, "UPDATE")
