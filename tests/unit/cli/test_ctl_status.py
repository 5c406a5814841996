"""Which parts are asked for how they are: those that everybody runs, those that answer, or those named."""

import json

import pytest

from dmpd.cli import commands
from dmpd.runtime import exit_codes
from dmpd.runtime.health import HealthServer
from dmpd.runtime.lifecycle import Lifecycle

COMMANDS = {"status": "dmpd.cli.ctl_status"}


@pytest.fixture
def daemons(tmp_path):
    """Bridge and Cloud Registry answer, access and canary do not; a function that begins another one."""
    servers = []

    def begin(name, state="ready"):
        lifecycle = Lifecycle(name)
        lifecycle.set_state(state)
        servers.append(HealthServer(f"unix:{tmp_path / name}", lifecycle, dict))
        servers[-1].start()

    names = ("bridge", "cloud-registry", "access", "canary")
    binds = "".join(f"{name.replace('-', '_')}: {{health_bind: 'unix:{tmp_path / name}'}}\n" for name in names)
    nowhere = "kafka: {bootstrap_servers: '127.0.0.1:1'}\ndatabase: {conninfo: host=127.0.0.1 port=1}\n"
    (tmp_path / "dmpd.yaml").write_text(binds + nowhere)
    begin("bridge")
    begin("cloud-registry")
    yield begin
    for server in servers:
        server.stop()


def ask(tmp_path, capsys, *words):
    code = commands.run("dmpctl", "", COMMANDS, ["status", *words, "--json", "--config", str(tmp_path / "dmpd.yaml")])
    return code, {one["name"]: one["ready"] for one in json.loads(capsys.readouterr().out)}


def test_who_is_named_is_asked_alone(tmp_path, capsys, daemons):
    assert ask(tmp_path, capsys, "bridge") == (exit_codes.OK, {"bridge": True})
    both = {"cloud-registry": True, "access": False}
    assert ask(tmp_path, capsys, "cloud-registry", "access") == (exit_codes.DIFFERENT, both)


def test_who_does_not_run_everywhere_is_shown_where_it_answers(tmp_path, capsys, monkeypatch, daemons):
    monkeypatch.setattr("dmpd.cli.ctl_status.PARTS", ("bridge", "cloud-registry", "access", "canary"))
    everywhere = {"bridge": True, "cloud-registry": True}
    assert ask(tmp_path, capsys) == (exit_codes.OK, everywhere)
    daemons("access", "draining")
    assert ask(tmp_path, capsys) == (exit_codes.DIFFERENT, everywhere | {"access": False})
    daemons("canary")
    assert ask(tmp_path, capsys, "canary") == (exit_codes.OK, {"canary": True})


def test_servers_that_are_away_are_not_ready(tmp_path, capsys, daemons):
    assert ask(tmp_path, capsys, "database") == (exit_codes.DIFFERENT, {"database": False})


def test_what_is_no_part_is_wrong_usage(tmp_path, capsys, daemons):
    with pytest.raises(SystemExit) as ended:
        ask(tmp_path, capsys, "postgresql")
    assert ended.value.code == exit_codes.USAGE
    assert "expected one of bridge, cloud-registry, access, canary, kafka, database, got" in capsys.readouterr().err
