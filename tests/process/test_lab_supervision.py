"""supervisord with the program files of etc/supervisor: parts come one by one, come back after a kill, end in order."""

import os
import shlex
import sys

import pytest

from dmpd.lab.layout import ETC
from dmpd.lab.leftovers import processes_of
from dmpd.lab.state import LabFolder
from dmpd.lab.supervision import Supervisor
from tests.support.platform import until
from tests.support.services import public_folder

SLEEPER = shlex.join([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"])


@pytest.fixture
def folder():
    with public_folder() as root:
        lab_folder = LabFolder(root / "lab")
        lock = lab_folder.lock()
        lab_folder.create()
        yield lab_folder
        lock.release()


@pytest.fixture
def supervisor(folder):
    """A supervisord in which ``dmpd`` is a program that sleeps."""
    environment = {
        "DMPD": "/bin/sleep 600 #",
        "DMPD_CONFIG": str(folder.config),
        "DMPD_LOG": str(folder.log),
        "DMPD_LAB_SIMULATE_COMMAND": SLEEPER,
        "DMPD_LAB_DUTS_COMMAND": SLEEPER,
    }
    found = Supervisor(folder)
    process = found.start(environment=environment, as_root=os.geteuid() == 0)
    yield found
    found.shutdown()
    assert process.wait(20) is not None
    assert processes_of(folder) == []


def running(supervisor):
    return {part.name: part.pid for part in supervisor.states() if part.state == "RUNNING"}


def test_parts_are_enabled_one_by_one(supervisor):
    assert supervisor.enable("lab-simulate") == ["simulate"]
    until(lambda: "simulate" in running(supervisor), "simulate runs")
    assert supervisor.enable("lab-duts") == ["duts"]
    until(lambda: len(running(supervisor)) == 2, "the devices run too")


def test_a_killed_part_comes_back_with_another_pid(supervisor):
    supervisor.enable("lab-simulate")
    until(lambda: "simulate" in running(supervisor), "simulate runs")
    before = running(supervisor)["simulate"]
    supervisor.signal("simulate", "KILL")
    until(lambda: running(supervisor).get("simulate", before) != before, "simulate is back")


def test_a_stopped_part_stays_stopped_until_it_is_started(supervisor):
    supervisor.enable("lab-simulate")
    until(lambda: "simulate" in running(supervisor), "simulate runs")
    supervisor.stop("simulate")
    assert [part.state for part in supervisor.states()] == ["STOPPED"]
    supervisor.restart("simulate")
    until(lambda: "simulate" in running(supervisor), "simulate runs again")


def test_logs_lie_in_the_lab_folder_under_the_part_names(supervisor, folder):
    supervisor.enable("lab-simulate")
    until(lambda: (folder.log / "simulate.log").exists() and (folder.log / "simulate.log").read_text() == "up\n", "log")


def test_the_parts_end_with_a_lab_that_is_killed(folder):
    """The process that started supervisord dies by kill -9: supervisord ends its parts and itself."""
    code = (
        "import sys; from pathlib import Path; from dmpd.lab.state import LabFolder; "
        "from dmpd.lab.supervision import Supervisor; folder = LabFolder(Path(sys.argv[1])); s = Supervisor(folder); "
        "s.start(environment={'DMPD_LOG': str(folder.log), 'DMPD_LAB_SIMULATE_COMMAND': sys.argv[2]}, "
        "as_root=sys.argv[3] == '1'); s.enable('lab-simulate'); print('up', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", code, str(folder.root), SLEEPER, str(int(os.geteuid() == 0))]
    import subprocess

    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as lab:
        assert lab.stdout.readline() == b"up\n"
        # A program that was forked and not yet started would miss supervisord's TERM, and be killed 30 s later.
        log = folder.log / "simulate.log"
        until(lambda: log.exists() and "up" in log.read_text(), "the part runs")
        assert len(processes_of(folder)) >= 1
        lab.kill()
        lab.wait(5)
    until(lambda: processes_of(folder) == [], "supervisord and its parts are gone")


def test_every_program_file_names_its_exit_codes_and_gives_the_drain_its_time():
    for path in sorted((ETC / "supervisor").glob("*.conf")):
        text = path.read_text()
        assert text.count("[program:") == text.count("stopwaitsecs=") == text.count("killasgroup=true"), path
        assert "stopasgroup=true" not in text, path
        if "autorestart=unexpected" in text:
            assert "exitcodes=0,64,78" in text, path
