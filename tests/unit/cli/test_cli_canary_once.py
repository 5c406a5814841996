"""dmpd canary --once: its exit code is the verdict, or why there was no run."""

import argparse
import json
from types import SimpleNamespace

import pytest

from dmpd.canary.run import BusyError, DisabledError
from dmpd.cli import canary
from dmpd.cli.config import CloudConfig
from dmpd.runtime.database import DatabaseError
from tests.support.canary_reports import report_of


@pytest.fixture
def once(monkeypatch):
    """Runs it; a run gives ``result``, or raises it."""

    def run(result, **args):
        async def run_once(*_, **__):
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(canary, "run_once", run_once)
        given = {"clients": None, "ramp": None, "profile": None, "seed": None, "trigger": "hand", "json": True}
        return canary._once(CloudConfig(), argparse.Namespace(**given | args))

    lifecycle = SimpleNamespace(install_async=lambda _: None, wait_stop=lambda: None)
    monkeypatch.setattr(canary, "Lifecycle", lambda _: lifecycle)
    monkeypatch.setattr(canary, "_check_schema", lambda _: None)
    return run


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("degraded", 3), ("unknown", 69)])
def test_the_verdict_is_the_exit_code(once, capsys, verdict, code, as_json):
    assert once(report_of("r-1", verdict=verdict), json=as_json) == code
    said = capsys.readouterr().out
    assert verdict in said
    if as_json:
        assert json.loads(said)["verdict"] == verdict


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BusyError("run r-1 is under way"), 75),
        (DisabledError("disabled by me"), 4),
        (DatabaseError("connection refused"), 69),
    ],
)
def test_why_there_was_no_run_is_an_exit_code_too(once, capsys, error, code):
    assert once(error) == code
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", f"dmpd canary: {error}\n")
