"""Whether a daemon is alive: where it is asked, and what process 1 of a container was started as."""

import subprocess
import sys

import pytest

from dmpd.cli import commands, daemons
from dmpd.cli.config import CloudConfig
from dmpd.cloud_registry.settings import CloudRegistrySettings
from dmpd.runtime import exit_codes
from dmpd.runtime.health import HealthServer
from dmpd.runtime.lifecycle import Lifecycle

COMMANDS = {"health": "dmpd.cli.ctl_health"}


@pytest.fixture
def server(tmp_path):
    lifecycle = Lifecycle("bridge")
    server = HealthServer(f"unix:{tmp_path / 'h.sock'}", lifecycle, dict)
    server.start()
    yield server, lifecycle
    server.stop()


def run(*arguments):
    return commands.run("dmpctl", "", COMMANDS, ["health", *map(str, arguments)])


def test_alive_is_0_also_while_it_waits_and_stopped_is_1(server, capsys):
    server, lifecycle = server
    lifecycle.set_state("degraded", "Kafka does not answer")
    assert run("--at", server.address) == exit_codes.OK
    assert capsys.readouterr().out == "degraded: Kafka does not answer\n"
    lifecycle.set_state("stopped")
    assert run("--at", server.address) == exit_codes.DIFFERENT


def test_nobody_there_is_1(tmp_path, capsys):
    assert run("--at", f"unix:{tmp_path / 'none'}") == exit_codes.DIFFERENT
    assert "no daemon answers" in capsys.readouterr().out


def test_a_process_is_asked_as_what_it_was_started(server, tmp_path, capsys):
    config = tmp_path / "dmpd.yaml"
    config.write_text(f"bridge:\n  health_bind: {server[0].address}\n")
    code = "import sys; print(flush=True); sys.stdin.read()"
    for words in (["bridge", "--config", str(config)], ["bridge", f"--config={config}"]):
        command = [sys.executable, "-c", code, *words]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            assert run("--of-pid", process.pid) == exit_codes.OK
    assert run("--of-pid", 1 << 22) == exit_codes.DIFFERENT
    assert "is none of bridge, cloud-registry" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bind", "asked"),
    [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        (":1", "127.0.0.1:1"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("unix:/x", "unix:/x"),
    ],
)
def test_who_listens_everywhere_is_asked_at_loopback(bind, asked):
    config = CloudConfig(cloud_registry=CloudRegistrySettings(health_bind=bind))
    assert daemons.bind_of(config, "cloud-registry") == asked
