"""The lab's folder: one holder, no stranger's folder, nothing left of a former run."""

import os
import signal
import subprocess
import sys

import pytest

from dmpd.lab import leftovers
from dmpd.lab.state import LabFolder, LabInfo, LabRunningError, LabStateError
from dmpd.lab.supervision import MARK

INFO = LabInfo(pid=7, raes=2, devices=10, rate=1.0, mosquitto_port=1, kafka_port=2, parts=["kafka", "bridge"])


@pytest.fixture
def folder(tmp_path):
    return LabFolder(tmp_path / "lab")


def test_a_second_holder_learns_what_is_running(folder):
    lock = folder.lock()
    folder.write_info(INFO)
    assert folder.is_locked()
    with pytest.raises(
        LabRunningError, match=r"pid 7, 2 simulated RAEs with 10 devices each, 0 devices on a LAN\): kafka, bridge"
    ):
        folder.lock()
    lock.release()
    assert not folder.is_locked()
    folder.lock().release()


def test_nobody_holds_a_folder_that_is_not_there(folder):
    assert not folder.is_locked()
    assert folder.read_info() is None


def test_create_forgets_a_former_run_but_keeps_the_lock(folder):
    lock = folder.lock()
    (folder.root / "kafka").mkdir()
    (folder.root / "kafka" / "old").write_text("old")
    (folder.root / "link").symlink_to("/")
    folder.create()
    assert sorted(path.name for path in folder.root.iterdir()) == [
        "lan",
        "lock",
        "log",
        "programs",
        "run",
        "simulate",
        "tls",
    ]
    with pytest.raises(LabRunningError):
        folder.lock()
    lock.release()


def test_a_link_in_place_of_the_folder_is_refused(folder, tmp_path):
    folder.root.symlink_to(tmp_path)
    with pytest.raises(LabStateError, match="not ours"):
        folder.lock()


def test_a_broken_or_foreign_info_file_is_no_info(folder):
    folder.lock().release()
    (folder.root / "lab.json").write_text('{"pid": "many"}')
    assert folder.read_info() is None


def test_leftovers_are_found_by_their_mark_and_ended(folder):
    folder.lock().release()
    environment = {**os.environ, MARK: str(folder.root)}
    other = {**os.environ, MARK: f"{folder.root}-other"}
    sleeper = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    ours = subprocess.Popen(sleeper, env=environment, stdout=subprocess.PIPE)
    theirs = subprocess.Popen(sleeper, env=other, stdout=subprocess.PIPE)
    try:
        for process in (ours, theirs):
            process.stdout.readline()
        assert leftovers.processes_of(folder) == [ours.pid]
        assert leftovers.clean(folder) == 1
        assert ours.wait(5) == -signal.SIGKILL
        assert theirs.poll() is None
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait()
            process.stdout.close()
