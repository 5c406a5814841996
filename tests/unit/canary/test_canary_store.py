"""The lease, the switch and the history, on a real database."""

from types import SimpleNamespace

import msgspec
import pytest
from msgspec import structs

from dmpd.canary import store
from dmpd.canary.report import Counted, Facts
from dmpd.canary.run import BusyError, DisabledError, _begin, _save_once
from dmpd.canary.settings import CanarySettings
from dmpd.canary.summary import summarize
from tests.support.canary_reports import new_run, report_of
from tests.support.rows import migrated

pytestmark = pytest.mark.services
A, B, C = (f"00000000-0000-0000-0000-00000000000{letter}" for letter in "abc")
NEW = new_run(A)


def report(run, verdict="pass", **facts):
    times = {name: summarize([0.25]) for name in ("connect", "puback", "kafka", "row")}
    return report_of(run, verdict=verdict, facts=Facts(clients=10, connected=10, times=times, **facts))


def plain(value):
    return msgspec.json.decode(msgspec.json.encode(value))


@pytest.fixture
def connection(postgres):
    with migrated(postgres) as found:
        yield found


def test_one_has_the_lease_until_it_is_given_back_or_over(connection):
    assert store.take_lease(connection, A, "one:1")
    assert not store.take_lease(connection, B, "two:2")
    assert store.read_state(connection).holder == "one:1"
    assert store.renew_lease(connection, A) is None
    store.release_lease(connection, B)  # it is not its
    assert not store.take_lease(connection, B, "two:2")
    store.release_lease(connection, A)
    assert store.read_state(connection).run is None
    assert store.take_lease(connection, B, "two:2")
    connection.execute("UPDATE canary_state SET lease_until = clock_timestamp() - INTERVAL '1 second'")
    assert store.take_lease(connection, C, "three:3")
    assert store.renew_lease(connection, B) == "another instance has the lease"


def test_disabled_keeps_runs_from_beginning_and_ends_the_one_that_has(connection):
    assert store.take_lease(connection, A, "one:1")
    store.set_enabled(connection, enabled=False, who="me", why="a deployment")
    assert store.renew_lease(connection, A) == "disabled by me: a deployment"
    store.release_lease(connection, A)
    assert not store.take_lease(connection, B, "two:2")
    assert store.read_state(connection).why == "a deployment"
    store.set_enabled(connection, enabled=True, who="me", why="")
    assert store.take_lease(connection, B, "two:2")


def test_a_report_comes_back_as_it_was_kept(connection):
    store.begin(connection, NEW)
    kept = report(A, "fail", lost=Counted(count=2, examples=("canary-0001 seq 3",)))
    store.end(connection, kept, history_days=90)
    ((run, found),) = store.find_report(connection, A[:8])
    assert run == A
    assert plain(found) == plain(kept)
    (run,) = store.last_runs(connection, 5)
    assert (run.verdict, run.lost, run.connected, run.p99s["row"]) == ("fail", 2, 10, 0.25)
    started_s, ended_s = store.ages_s(connection)
    assert 0 <= ended_s <= started_s < 600
    assert store.highest_epoch(connection) == 5


def test_the_usual_is_that_of_well_runs_of_the_same_shape(connection):
    for run, verdict, clients in ((A, "pass", 10), (B, "fail", 10), (C, "pass", 11)):
        store.begin(connection, structs.replace(NEW, run=run, clients=clients))
        store.end(connection, report(run, verdict), history_days=90)
    found = store.baseline(connection, NEW, runs_max=20)
    assert found == [{"connect": 0.25, "puback": 0.25, "kafka": 0.25, "row": 0.25}]


@pytest.mark.parametrize(
    "other", [{"clients": 11}, {"ramp": "herd"}, {"profile": "burst"}, {"changes": 9}, {"verdict": "unknown"}]
)
def test_the_usual_is_of_the_last_runs_newest_first_and_of_no_other_kind(connection, other):
    verdict = other.pop("verdict", "pass")
    for run, changes, age_h in ((A, {}, 3), (B, {}, 2), (C, other, 1)):
        store.begin(connection, structs.replace(NEW, run=run, **changes))
        store.end(connection, report(run, "degraded" if run != C else verdict), history_days=90)
        connection.execute(
            "UPDATE canary_run SET started_at = now() - %s * INTERVAL '1 hour', p99s = %s::jsonb WHERE run = %s::uuid",
            (age_h, f'{{"row": {age_h}}}', run),
        )
    assert store.baseline(connection, NEW, runs_max=20) == [{"row": 2}, {"row": 3}]
    assert store.baseline(connection, NEW, runs_max=1) == [{"row": 2}]


def test_who_renews_its_lease_keeps_it(connection):
    assert store.take_lease(connection, A, "one:1")
    connection.execute("UPDATE canary_state SET lease_until = clock_timestamp() + INTERVAL '1 second'")
    assert store.renew_lease(connection, A) is None
    ((left_s,),) = connection.execute("SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM canary_state")
    assert 1 < left_s <= store.LEASE_S


def test_who_never_ended_is_ended_by_the_next_and_is_no_run_that_ended(connection):
    store.begin(connection, NEW)
    store.begin(connection, structs.replace(NEW, run=B))
    (dead,) = store.end_dead(connection, B)
    assert (dead.run, dead.verdict, dead.reasons[0]["name"]) == (A, "unknown", "runner_died")
    assert store.end_dead(connection, B) == []
    assert store.ages_s(connection)[1] is None
    assert store.find_report(connection, A) == [(A, None)]


def test_runs_are_kept_for_so_many_days(connection):
    store.begin(connection, NEW)
    connection.execute("UPDATE canary_run SET started_at = started_at - INTERVAL '91 days'")
    store.begin(connection, structs.replace(NEW, run=B))
    store.end(connection, report(B), history_days=90)
    assert [run.run for run in store.last_runs(connection, 5)] == [B]


def test_open_device_sessions_of_canaries_are_found_and_no_others(connection):
    insert_rae = "INSERT INTO rae VALUES (%s, 1, 1, 'ready', '{}', NULL, 0, 0, now())"
    insert = (
        "INSERT INTO device_session (rae, session, epoch, rev, seq, stale, state, changed_at, kafka_partition,"
        " kafka_offset, applied_at, closed_at) VALUES (%s, %s, 1, 1, 1, false, 'online', now(), 0, 0, now(), {})"
    )
    for rae in ("canary-0003", "canary-0004", "R-1"):
        connection.execute(insert_rae, (rae,))
    connection.execute(insert.format("NULL"), ("canary-0003", A))
    connection.execute(insert.format("now()"), ("canary-0004", B))
    connection.execute(insert.format("NULL"), ("R-1", C))
    assert [(one.number, one.session) for one in store.open_sessions(connection)] == [(3, A)]


def test_a_run_begins_with_the_lease_above_every_epoch_and_tells_of_who_never_ended(connection, postgres):
    """However far a clock was set back: rows of an older epoch would win over this run's."""
    platform = SimpleNamespace(database=postgres)

    def begin(run):
        return _begin(CanarySettings(), platform, run, "h:1", "hand", 7)

    store.begin(connection, structs.replace(NEW, epoch=1 << 50))
    new, (former,) = begin(B)
    assert (new.epoch, new.seed, former.run) == ((1 << 50) + 1, 7, A)
    with pytest.raises(BusyError, match=B):
        begin(C)
    _save_once(platform, report(B), 90)
    new, former = begin(C)
    assert (new.epoch, former) == ((1 << 50) + 2, [])
    _save_once(platform, report(C), 90)
    store.set_enabled(connection, enabled=False, who="me", why="a deployment")
    with pytest.raises(DisabledError, match="disabled by me: a deployment"):
        begin(A)
