"""``dmpctl request``: what is wrong is said in one sentence, before anybody is asked; the outcome is the exit code."""

from datetime import UTC, datetime

import pytest

from dmpd.cli import ctl_request, dmpctl
from dmpd.cli.arguments import default_operator
from dmpd.cli.ctl_request import _pairs
from dmpd.model.messages import Response
from dmpd.model.principals import PrincipalKind, principal_kind

SESSION = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "dmpd.yaml"
    path.write_text("kafka:\n  bootstrap_servers: 127.0.0.1:1\n")
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("0000",), "expected SESSION VERB"),
        ((SESSION, "ping"), "ping is asked of the RAE"),
        (("00000000", "app.launch"), "missing required field `app`"),
        (("00000000", "app.launch", "Netflix"), "expected NAME=VALUE, got 'Netflix'"),
        (("00000000", "app.launch", "app=7"), "Expected `str`, got `int`"),
        (("00000000", "reboot"), "unknown verb 'reboot'"),
        (("--rae", "sim-0001", "epoch.raise", "refused=1"), "above"),
        (("--rae", "u-ada", "ping"), "expected the serial of a RAE"),
        (("--rae", "sim-0001", "ping", "--timeout", "4000"), "1 to 3600"),
        (("--rae", "sim-0001", "ping", "--timeout", "1.5"), "whole seconds"),
        (("--rae", "sim-0001", "ping", "--as", "u-ada"), "expected op-NAME"),
    ],
)
def test_wrong_use_is_64_and_one_sentence(config, capsys, words, said):
    try:
        code = dmpctl.main(["request", *words, "--config", str(config)])
    except SystemExit as ended:
        code = ended.code
    output = capsys.readouterr()
    assert (code, output.out) == (64, "")
    assert said in output.err


class Answering:
    """A sender whose request waits for a while, and then comes to ``outcome``."""

    outcome = "done"

    def __init__(self, _kafka, _topics, requester):
        assert requester == "op-eve"

    def ask(self, request, *, lifetime_s, told, waiting):
        assert lifetime_s == 7
        told(None)
        for _ in range(5):
            waiting()
        error = None if self.outcome == "done" else "so it is"
        response = Response(
            v=1, rae=request.rae, session="rae", at=datetime.now(UTC), id=request.id, outcome=self.outcome, error=error
        )
        told(response)
        return response

    def close(self):
        """Nothing to free."""


@pytest.mark.parametrize(
    ("outcome", "code"), [("done", 0), ("failed", 3), ("refused", 4), ("expired", 5), ("interrupted", 6)]
)
def test_the_outcome_is_the_exit_code_and_progress_is_told_meanwhile(monkeypatch, config, capsys, outcome, code):
    monkeypatch.setattr(ctl_request, "RequestSender", Answering)
    monkeypatch.setattr(Answering, "outcome", outcome)
    monkeypatch.setattr(ctl_request, "_SAY_EVERY_S", 0.0)
    words = ("--rae", "r1", "ping", "--as", "op-eve", "--id", "i1", "--timeout", "7", "--config", str(config))
    assert dmpctl.main(["request", *words]) == code
    output = capsys.readouterr()
    assert output.out == ("done\n" if code == 0 else f"{outcome}: so it is\n")
    progress = [line.split("ms  ")[1] for line in output.err.splitlines()]
    assert progress == ["ping to r1 as op-eve, id i1: in Kafka", *["waiting"] * 5, outcome]


def test_the_beginning_of_several_ids_is_2_and_lists_them(monkeypatch, config, capsys):
    def found(_args, look):
        return look(None)

    monkeypatch.setattr(ctl_request, "ask_database", found)
    monkeypatch.setattr(ctl_request.query, "find_sessions", lambda *_, **__: [("r1", SESSION), ("r2", SESSION)])
    assert dmpctl.main(["request", "00000000", "wake", "--config", str(config)]) == 2
    assert f"2 sessions begin with 00000000:\n  {SESSION} of r1\n" in capsys.readouterr().err


def test_values_are_json_or_text():
    found = _pairs(["a=1", "b=Netflix", 'c={"d":[null]}', "e=", "f=x=y", 'g="7"'])
    assert {name: bytes(raw) for name, raw in found.items()} == {
        "a": b"1",
        "b": b'"Netflix"',
        "c": b'{"d":[null]}',
        "e": b'""',
        "f": b'"x=y"',
        "g": b'"7"',
    }


@pytest.mark.parametrize("login", ["eve", "Eve Müller", "-", "", "x" * 200, "a/b+#"])
def test_any_login_makes_an_operator(monkeypatch, login):
    monkeypatch.setattr("getpass.getuser", lambda: login)
    assert principal_kind(default_operator()) is PrincipalKind.OPERATOR
