"""dmpctl canary: what it tells of runs, and the exit codes that a monitor goes by."""

import json

import pytest
import yaml

from dmpd.canary import store
from dmpd.canary.report import Facts, Reason
from dmpd.canary.summary import summarize
from dmpd.cli import dmpctl
from dmpd.runtime import exit_codes
from tests.support.canary_reports import new_run, report_of
from tests.support.rows import migrated

pytestmark = pytest.mark.services
A, B = "a0000000-0000-0000-0000-000000000001", "b0000000-0000-0000-0000-000000000002"
SLOW = Reason(name="control_slow", word="fail", sentence="control group p99 2.00 s during the crowd")


@pytest.fixture
def connection(postgres):
    with migrated(postgres) as found:
        yield found


@pytest.fixture
def ctl(tmp_path, postgres, connection):
    path = tmp_path / "dmpd.yaml"
    path.write_text(yaml.safe_dump({"database": {"conninfo": postgres.conninfo}}))
    return lambda action, *words: dmpctl.main(["canary", action, "--config", str(path), *words])


@pytest.fixture
def ran(connection):
    def keep(run, verdict="pass", reasons=(), *, row_s=0.25):
        store.begin(connection, new_run(run))
        facts = Facts(clients=10, connected=10, times={"row": summarize([row_s] * 9 + [2 * row_s])}, lag_zero_s=1.0)
        store.end(connection, report_of(run, verdict=verdict, reasons=reasons, facts=facts), history_days=90)

    return keep


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("degraded", 3), ("unknown", 69)])
def test_the_last_verdict_is_the_exit_code(ctl, ran, capsys, verdict, code):
    ran(A, verdict)
    assert ctl("status") == code
    assert verdict in capsys.readouterr().out
    assert (ctl("last"), ctl("show", "a0")) == (code, code)


def test_nobody_who_never_ran_is_well(ctl, capsys):
    assert ctl("status") == exit_codes.UNAVAILABLE
    assert "no canary run ever ended" in capsys.readouterr().out


@pytest.mark.parametrize(("verdict", "code"), [("pass", 69), ("degraded", 69), ("fail", 1)])
def test_no_end_for_too_long_is_an_alarm_and_no_pass(ctl, ran, connection, capsys, verdict, code):
    ran(A, verdict)
    connection.execute("UPDATE canary_run SET ended_at = ended_at - INTERVAL '3 hours 40 minutes'")
    assert ctl("status", "--json") == code
    said = json.loads(capsys.readouterr().out)
    assert said["alarm"] == "no canary run ended in the last 3.7 h, at least one in 3.5 h expected"
    connection.execute("UPDATE canary_run SET ended_at = ended_at + INTERVAL '20 minutes'")
    ctl("status", "--json")
    assert json.loads(capsys.readouterr().out)["alarm"] is None


def test_a_disabled_one_is_no_pass_and_says_why(ctl, ran, capsys):
    ran(A)
    assert ctl("disable", "a deployment") == exit_codes.OK
    assert ctl("status") == exit_codes.UNAVAILABLE
    assert "a deployment" in capsys.readouterr().out
    assert ctl("enable") == exit_codes.OK
    assert ctl("status") == exit_codes.OK


def test_a_run_is_shown_with_its_reasons_times_and_histogram(ctl, ran, capsys):
    ran(A, "fail", [SLOW])
    assert ctl("show", "last") == exit_codes.DIFFERENT
    said = capsys.readouterr().out
    assert "fail  control_slow: control group p99 2.00 s" in said
    (line,) = [line for line in said.splitlines() if line.startswith("publish to row")]
    assert "250.0 ms" in line
    assert "█" in line
    assert said.rstrip().endswith("verdict fail")


def test_the_history_has_the_newest_first_and_two_are_compared(ctl, ran, capsys):
    ran(A, row_s=0.1)
    ran(B, "fail", [SLOW], row_s=0.4)
    assert ctl("history", "--json") == exit_codes.OK
    assert [(run["run"], run["verdict"]) for run in json.loads(capsys.readouterr().out)] == [(B, "fail"), (A, "pass")]
    assert ctl("history", "--limit", "1") == exit_codes.OK
    said = capsys.readouterr().out
    assert "control_slow" in said
    assert "1 run;" in said
    assert ctl("compare", "last~1", "b0") == exit_codes.OK
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("publish to row, p50")]
    assert line.split()[-1] == "4.00"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("c", exit_codes.DIFFERENT, "no run begins with c"),
        ("last~7", exit_codes.DIFFERENT, "last~7: 2 runs have a report"),
        ("d", exit_codes.DIFFERENT, "it is under way, or its runner died"),
    ],
)
def test_a_run_that_is_not_there_is_said(ctl, ran, connection, capsys, name, code, said):
    ran(A)
    ran(B)
    store.begin(connection, new_run("d0000000-0000-0000-0000-000000000003"))
    assert ctl("show", name) == code
    assert said in capsys.readouterr().err


def test_the_beginning_of_two_runs_is_not_enough(ctl, ran, capsys):
    ran(A)
    ran("a1000000-0000-0000-0000-000000000001")
    assert ctl("show", "a") == exit_codes.AMBIGUOUS
    assert "several runs begin with a" in capsys.readouterr().err
