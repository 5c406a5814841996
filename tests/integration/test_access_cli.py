"""``dmpctl access`` as an operator uses it, with a daemon and a broker that do what it says."""

import json
import re
import signal
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from dmpd.cli import dmpctl
from tests.support.access import access_rig
from tests.support.grants import S1, S2
from tests.support.platform import BIN, until
from tests.support.services import public_folder

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def rig(postgres_server):
    with postgres_server.database() as database, public_folder() as folder, access_rig(folder, database) as found:
        yield found


class Said(NamedTuple):
    stdout: str
    stderr: str


@pytest.fixture
def ctl(rig, capsys):
    """Runs ``dmpctl access VERB WORDS`` in this process, which is ten times quicker, and checks its exit code."""

    def run(verb, *words, code=0):
        capsys.readouterr()
        try:
            found = dmpctl.main(["access", verb, *words, "--config", str(rig.daemon.config)])
        except SystemExit as end:
            found = end.code
        said = capsys.readouterr()
        assert found == code, said
        return Said(said.out, said.err)

    return run


def test_an_operators_afternoon(rig, ctl):
    """Grant, look, extend, explain, revoke; each answers when the broker has done it."""
    done = ctl("grant", "u-day", "--rae", "R5", "--session", S1, "--command", "--for", "2h", "--why", "demo", "--json")
    made = json.loads(done.stdout)
    assert (made["user"], made["level"], made["broker"]) == ("u-day", "command", True)
    assert 0 <= made["after_s"] < 10
    assert "nothing was ever heard of RAE R5" in done.stderr
    assert made["id"] in {row["id"] for row in json.loads(ctl("list", "--user", "u-day", "--json").stdout)}
    told = ctl("extend", made["id"][:8], "--for", "1h").stdout
    assert re.search(r"u-day command R5/7b0a.* until .*: extended after \d+\.\d\d s", told)
    why = json.loads(ctl("explain", "u-day", S1, "--rae", "R5", "--json").stdout)
    assert (why["sees"], why["commands"]) == (True, True)
    assert f"its rule g-{made['id']} is in the broker since" in " ".join(why["why"])
    assert "has no grant for it" in ctl("explain", "u-other", S1, "--rae", "R5", code=1).stdout
    between = rig.events("in force")[-1][1].isoformat()
    assert ": over after" in ctl("revoke", made["id"], "--why", "done").stdout
    codes = [line["code"] for line in json.loads(ctl("audit", "--grant", made["id"], "--json").stdout)]
    assert codes == ["granted", "in force", "extended", "updated", "revoked", "ended"]
    [past] = json.loads(ctl("list", "--user", "u-day", "--past", "--json").stdout)
    assert past["state"] == "ended"
    [then] = json.loads(ctl("list", "--rae", "R5", "--at", between, "--json").stdout)
    assert (then["id"], then["state"]) == (made["id"], "in force")
    for words in (
        ("--at", "2020-01-01T00:00:00Z"),
        ("--at", between, "--rae", "R2"),
        ("--at", between, "--user", "u-x"),
    ):
        ctl("list", *words, code=1)
    ctl("audit", "--user", "u-day", "--since", "2099-01-01T00:00:00Z", code=1)
    ctl("audit", "--user", "u-other", code=1)
    assert len(json.loads(ctl("audit", "--user", "u-day", "--lines", "2", "--json").stdout)) == 2
    assert json.loads(ctl("reconcile", "--dry-run", "--json").stdout) == {"count": 0, "changes": []}


def test_one_commander_at_a_time(rig, ctl):
    words = ("--rae", "R1", "--session", S2, "--exclusive", "--why", "x", "--json")
    first = json.loads(ctl("grant", "u-one", *words, "--for", "1h").stdout)
    refused = json.loads(ctl("grant", "u-two", *words, "--for", "1h", code=4).stdout)
    assert [one["user"] for one in refused["holders"]] == ["u-one"]
    held = rig.grant("u-looks", rae="R1", session=S2, level="command")
    why = json.loads(ctl("explain", "u-looks", S2, "--rae", "R1", "--json").stdout)
    assert (why["sees"], why["commands"]) == (True, False)
    assert why["why"][0].startswith(f"grant {held.id}: command, in force, ")
    assert why["why"][-1] == f"u-one commands it alone until {first['ends_at'][:19]}Z (grant {first['id']})"
    assert not any(sentence.startswith(f"grant {first['id']}") for sentence in why["why"]), "another's is not his"
    with in_the_queue(rig, "u-two", *words) as second, in_the_queue(rig, "u-three", *words) as third:
        third.send_signal(signal.SIGINT)
        assert third.wait(60) == 6
        assert "left the queue" in third.stderr.read()
        ctl("revoke", first["id"])
        said, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert json.loads(said)["broker"] is True
    ctl("revoke", json.loads(said)["id"])
    [gone] = json.loads(ctl("list", "--user", "u-three", "--past", "--json").stdout)
    assert (gone["state"], gone["queued"]) == ("ended", True)
    assert gone["ended_at"] < gone["starts_at"]


def test_who_leaves_the_queue_in_the_middle_of_a_question_has_left_it(rig, ctl, monkeypatch):
    """Ctrl-C, when it comes: psycopg takes no other question over a connection whose answer is under way."""

    def interrupted(connection, made, args):
        connection.pgconn.send_query(b"SELECT 1")
        raise KeyboardInterrupt

    words = ("--rae", "R6", "--session", S2, "--exclusive", "--why", "x", "--for", "1h")
    ctl("grant", "u-holds", *words)
    monkeypatch.setattr("dmpd.cli.access_give._granted", interrupted)
    assert "left the queue" in ctl("grant", "u-leaves", *words, "--wait", code=6).stderr
    [gone] = json.loads(ctl("list", "--user", "u-leaves", "--past", "--json").stdout)
    assert (gone["state"], gone["queued"]) == ("ended", True)


@contextmanager
def in_the_queue(rig, user, *words):
    """``dmpctl access grant --wait`` for an hour, which has said that it waits."""
    # INT is ignored by what is started in the background, as these tests may be.
    command = ["env", "--default-signal=INT", BIN / "dmpctl", "access", "grant", user, *words, "--wait", "--for", "1h"]
    command += ["--config", rig.daemon.config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        try:
            assert any("stands in the queue" in line for line in waiting.stderr), "it never stood in the queue"
            yield waiting
        finally:
            waiting.kill()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("u-a", "--rae", "+", "--for", "1h"), 4, "rae: expected the serial of a RAE, got '+'"),
        (("R1", "--rae", "R1", "--for", "1h"), 4, "user: expected u-NAME"),
        (("u-a';--", "--rae", "R1", "--for", "1h"), 4, "user: expected u-NAME"),
        (("u-a", "--rae", "R1", "--session", "#", "--for", "1h"), 4, "session: expected the id"),
        (("u-a", "--rae", "R1", "--for", "31d"), 4, "expected at most 720 hours from now"),
        (("u-a", "--rae", "R1", "--until", "2020-01-01T00:00:00Z"), 4, "it would end (2020-01-01T00:00:00Z) before"),
        (("u-a", "--rae", "R1", "--for", "2 hours"), 64, "expected 30m, 2h or 30d, got '2 hours'"),
        (("u-a", "--rae", "R1", "--for", "1h", "--wait"), 64, "--wait is for --exclusive"),
        (("u-a", "--rae", "R1"), 64, "--for --until is required"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(ctl, words, code, said):
    assert said in ctl("grant", *words, "--why", "x", code=code).stderr


def test_a_grant_of_a_session_that_ended_shows_as_orphaned(rig, ctl):
    """Merged into another: the grant does not follow."""
    ended, goes_on = "aaaaaaaa-6c1f-4c3f-9c30-0b1f7f7a2f10", "bbbbbbbb-6c1f-4c3f-9c30-0b1f7f7a2f10"
    rig.grant("u-orphan", rae="R8", session=ended)
    rig.grant("u-orphan", rae="R8", session=goes_on, s=700)
    with rig.connection() as connection:
        for rae, session, successor in (("R8", ended, S1), ("R8", goes_on, None), ("R9", goes_on, S1)):
            connection.execute(
                "INSERT INTO device_session (rae, session, epoch, rev, seq, stale, closed_at, closed_reason, successor,"
                " state, changed_at, kafka_partition, kafka_offset, applied_at)"
                " VALUES (%s, %s, 1, 1, 1, false, %s, %s, %s, 'unknown', now(), 0, 0, now())",
                (rae, session, successor and datetime.now(UTC), successor and "merged", successor),
            )
    rows = json.loads(ctl("list", "--user", "u-orphan", "--json").stdout)
    assert [(row["session"], row["state"]) for row in rows] == [(ended, "orphaned"), (goes_on, "in force")]
    why = json.loads(ctl("explain", "u-orphan", ended, "--json").stdout)["why"]
    assert why[0].startswith(f"grant {rows[0]['id']}: read, orphaned, from ")
    assert not any(rows[1]["id"] in sentence for sentence in why), "of another session"
    assert "several RAEs have session" in ctl("explain", "u-orphan", goes_on, code=1).stderr
    assert "has no grant for it" in ctl("explain", "u-orphan", S1, "--rae", "R8", code=1).stdout


def test_without_a_daemon_it_says_so_and_the_grant_stands(rig, ctl):
    rig.daemon.stop()
    try:
        words = ("u-late", "--rae", "R1", "--session", S1, "--for", "1h", "--why", "x", "--timeout", "1")
        done = ctl("grant", *words, code=3)
        assert "the broker does not know yet" in done.stderr
        [row] = json.loads(ctl("list", "--user", "u-late", "--json").stdout)
        assert row["state"] == "in force"
        why = ctl("explain", "u-late", S1, "--rae", "R1").stdout
        assert f"its rule g-{row['id']} is missing in the broker: dmpd access" in " ".join(why.split())
        command = [BIN / "dmpctl", "access", "extend", row["id"], "--for", "1h", "--timeout", "60", "--json"]
        extending = subprocess.Popen([*command, "--config", rig.daemon.config], stdout=subprocess.PIPE)
        until(lambda: row["id"] in {grant for grant, _, _ in rig.events("extended")}, "it waits for a daemon")
    finally:
        rig.daemon.start()
    with extending:
        assert json.loads(extending.communicate(timeout=90)[0])["broker"] is True, "it came in force with the new end"
