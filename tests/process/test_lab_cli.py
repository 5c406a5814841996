"""``dmpd lab`` as people use it: taken ports, a second one, signals, kills, a dead one's leftovers, a failing step."""

import os
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from dmpd.lab.leftovers import processes_of
from dmpd.lab.state import LabFolder
from tests.support.platform import BIN, LabUnderTest, dmpd, running_lab, until
from tests.support.services import public_folder

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]

SMALL = ("--raes", "1", "--devices", "2", "--no-lan")
PARTS = {"mosquitto", "kafka", "postgresql", "access", "bridge", "cloud-registry", "simulate"}


def pids(lab: LabUnderTest) -> dict[str, int]:
    return {part["name"]: part["pid"] for part in lab.status().get("parts", []) if part["state"] == "RUNNING"}


def supervisorctl(lab: LabUnderTest, *arguments: str) -> str:
    command = [str(BIN / "supervisorctl"), "-c", str(lab.folder.supervisor_config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def test_a_lab_beside_occupied_ports_serves_its_commands_and_goes_without_a_trace():
    with ExitStack() as stack:
        for port in (1883, 8883, 5432, 9092):
            with suppress(OSError):  # taken by somebody else already: just as good
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        with running_lab(*SMALL) as lab:
            assert set(pids(lab)) == PARTS

            second = lab.lab("up", *SMALL)
            assert second.returncode == 75
            assert f"pid {lab.process.pid}" in second.stderr
            assert "kafka" in second.stderr

            before = pids(lab)
            assert lab.lab("kill", "bridge").returncode == 0
            until(lambda: pids(lab).get("bridge", before["bridge"]) != before["bridge"], "the bridge is back")
            assert lab.lab("kill", "worker").returncode == 0
            unknown = lab.lab("kill", "nonsense")
            assert unknown.returncode == 1
            assert "mosquitto" in unknown.stderr

            assert "RUNNING" in supervisorctl(lab, "status", "kafka")
            supervisorctl(lab, "restart", "bridge")
            until(lambda: set(pids(lab)) == PARTS, "all parts run")
            until(lambda: lab.status()["health"]["bridge"].get("connected"), "the bridge is connected")

            assert "sim-0001" in lab.ctl("devices").stdout

            lab.process.send_signal(signal.SIGHUP)
            assert lab.process.wait(60) == 0
            assert not lab.folder.root.exists()
            assert processes_of(lab.folder) == []
            assert lab.lab("status").returncode == 1
            assert lab.lab("down").returncode == 0


def test_down_cleans_behind_a_lab_that_was_killed():
    with running_lab(*SMALL) as lab:
        lab.process.kill()
        lab.process.wait(10)
        assert lab.lab("down").returncode == 0
        assert processes_of(lab.folder) == []
        assert not lab.folder.root.exists()
        lab.process.returncode = 0  # what the context checks: this end was ours


def test_ctrl_c_while_starting_ends_what_was_started():
    with public_folder() as root:
        folder = LabFolder(root / "lab")
        command = [str(BIN / "dmpd"), "lab", "--state", str(folder.root), "up", *SMALL]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            while not process.stdout.readline().startswith("supervisord"):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            said = process.stdout.read()
            assert process.wait(60) == 0, said
        assert processes_of(folder) == []


@pytest.mark.parametrize(("program", "step"), [("mosquitto", "mosquitto"), ("java", "kafka")])
def test_a_failing_step_is_named_with_the_tail_of_its_log(program, step):
    with public_folder() as root:
        fake = root / "bin" / program
        fake.parent.mkdir()
        fake.write_text("#!/bin/sh\necho the moon is in the wrong house\nexit 3\n")
        fake.chmod(0o755)
        environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
        command = [str(BIN / "dmpd"), "lab", "--state", str(root / "lab"), "up", *SMALL]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert f"{step}" in done.stderr
        assert "the moon is in the wrong house" in done.stderr
        assert Path(root / "lab" / "log").exists(), "the logs are kept for a look"
        assert processes_of(LabFolder(root / "lab")) == []


def test_a_missing_program_is_named_with_its_package():
    with public_folder() as root:
        tools = root / "bin"
        tools.mkdir()
        for name in ("ip", "setpriv"):
            if found := shutil.which(name):
                (tools / name).symlink_to(found)
        command = [str(BIN / "dmpd"), "lab", "--state", str(root / "lab"), "up", *SMALL]
        environment = {**os.environ, "PATH": str(tools)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "apt-get install" in done.stderr


def test_commands_without_a_lab_say_so():
    with public_folder() as root:
        state = ("lab", "--state", str(root / "lab"))
        assert dmpd(*state, "status").returncode == 1
        assert "no lab runs" in dmpd(*state, "kill", "kafka").stderr
        assert dmpd(*state, "down").returncode == 0
