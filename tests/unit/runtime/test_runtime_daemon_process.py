"""What a daemon's process does at its ends: begin anew in place, die with supervisord, let supervisord see 78."""

import subprocess
import sys
import time

import pytest

from dmpd.cli import commands, config
from dmpd.runtime import daemon_process, exit_codes

ANEW = """
import os, signal, sys, time
from dmpd.runtime import daemon_process
from dmpd.runtime.lifecycle import Lifecycle
leak = os.open("/dev/null", os.O_RDONLY)
os.set_inheritable(leak, True)
def run(lifecycle):
    lifecycle.install_signals()
    print(os.getpid(), leak, sys.argv[1:], signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
    if "AGAIN" not in os.environ:
        os.environ["AGAIN"] = "1"
        lifecycle.reload()
        return 70
    os.kill(os.getpid(), signal.SIGTERM)
    return 5 if lifecycle.stop_requested else 6
sys.exit(daemon_process.serve("test", run, check_config=lambda: None))
"""


def test_it_begins_anew_in_the_same_process_with_its_arguments_and_no_leaked_descriptor():
    process = subprocess.Popen([sys.executable, "-c", ANEW, "a b", "--c"], stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=60)
    first, second = said.splitlines()
    assert first == second
    assert first.startswith(f"{process.pid} ")
    assert first.endswith("['a b', '--c'] set()")
    assert process.returncode == 5


def test_it_drains_when_supervisord_dies():
    daemon = (
        "import select, sys; from dmpd.runtime import daemon_process\n"
        "def run(lifecycle):\n"
        "    lifecycle.install_signals(); print('up', flush=True)\n"
        "    select.select([lifecycle.wakeup_fd], [], [], 60)\n"
        "    print('drained', lifecycle.stops, flush=True); return 0\n"
        "sys.exit(daemon_process.serve('test', run, check_config=lambda: None))"
    )
    parent = (
        "import os, subprocess, sys; os.environ['SUPERVISOR_ENABLED'] = '1'\n"
        f"subprocess.Popen([sys.executable, '-c', {daemon!r}]).wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    assert process.stdout.read() == "drained 1\n"
    process.stdout.close()


@pytest.mark.parametrize(
    ("code", "is_settled"), [(exit_codes.CONFIG, True), (exit_codes.USAGE, True), (exit_codes.INTERNAL, False)]
)
def test_what_no_restart_repairs_ends_after_startsecs_under_supervisord_only(monkeypatch, code, is_settled):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.delenv(daemon_process.UNDER_SUPERVISORD, raising=False)
    assert config.settle(code) == code
    assert slept == []
    monkeypatch.setenv(daemon_process.UNDER_SUPERVISORD, "1")
    assert config.settle(code) == code
    assert slept == [config.SETTLE_S] * is_settled
    assert config.SETTLE_S > 1.0


def test_wrong_usage_settles_too(monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setenv(daemon_process.UNDER_SUPERVISORD, "1")
    with pytest.raises(SystemExit) as ended:
        commands.run("dmpd", "", {"bridge": "dmpd.cli.bridge"}, ["bridge", "--nonsense"])
    assert ended.value.code == exit_codes.USAGE
    assert slept == [config.SETTLE_S]


@pytest.mark.parametrize("bind", ["nowhere", "127.0.0.1:70000", "127.0.0.1:", "unix:"])
@pytest.mark.parametrize("program", ["bridge", "cloud-registry"])
def test_a_malformed_bind_is_78_with_its_line(tmp_path, capsys, monkeypatch, program, bind):
    monkeypatch.delenv(daemon_process.UNDER_SUPERVISORD, raising=False)
    file = tmp_path / "dmpd.yaml"
    section = program.replace("-", "_")
    file.write_text(f"{section}:\n  health_bind: '{bind}'\n")
    modules = {program: f"dmpd.cli.{section}"}
    assert commands.run("dmpd", "", modules, [program, "--config", str(file)]) == exit_codes.CONFIG
    said = capsys.readouterr().err
    assert f'{file}:2 {section}.health_bind: expected host:port or unix:/path, got "{bind}"' in said
