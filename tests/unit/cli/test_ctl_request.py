"""``dmpctl request``: what is wrong with a command line is said in one sentence, before anybody is asked."""

import pytest

from dmpd.cli import dmpctl
from dmpd.cli.arguments import default_operator
from dmpd.cli.ctl_request import _pairs
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
