"""A stream under a real supervisord, with the program file's rules of etc/supervisor: stop, and what it ends."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dmpd.lab.layout import ETC
from tests.support import mock_cluster
from tests.support.services import unavailable
from tests.support.stream_daemon import ROOT, wait_for
from tests.support.stream_group import Group, SteadyLoad
from tests.support.stream_record import read_lives

TOPIC = "t"
PARTITIONS = 2
_SUPERVISORD = """
[unix_http_server]
file={folder}/supervisor.sock
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
directory={root}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/supervisor.sock
"""


@pytest.fixture
def cluster():
    with mock_cluster.running({TOPIC: PARTITIONS, f"{TOPIC}-dead": 1}) as cluster:
        yield cluster


def program_file(command, log):
    """The cloud registry's file with another command: what it says of signals and times is what is tested."""
    text = (ETC / "supervisor" / "cloud-registry.conf").read_text()
    text = text.replace("%(ENV_DMPD)s cloud-registry --config %(ENV_DMPD_CONFIG)s", command)
    return text.replace("%(ENV_DMPD_LOG)s/cloud-registry.log", str(log))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_supervisorctl_stop_drains_and_leaves_no_process(tmp_path, cluster):
    ctl = shutil.which("supervisorctl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if ctl is None:
        unavailable("supervisor is not installed")
    load = SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS)
    rarely = {"commit_interval_s": 60.0, "commit_records": 1_000_000}
    with Group(tmp_path, cluster.bootstrap, TOPIC, PARTITIONS, **rarely) as group:
        one = group.prepare("one", options={"record_s": 0.005})
        config = tmp_path / "supervisord.conf"
        command = shlex.join([sys.executable, "-m", "tests.support.stream_daemon", str(one.config_path)])
        config.write_text(_SUPERVISORD.format(folder=tmp_path, root=ROOT) + program_file(command, one.log_path))
        supervisord = subprocess.Popen(
            [ctl.replace("supervisorctl", "supervisord"), "-c", str(config)], stdout=subprocess.DEVNULL
        )
        try:
            (tmp_path / "dead").touch()
            load.send(200)
            wait_for(
                lambda: [p["ring_used_bytes"] > 0 for p in one.status["partitions"].values()] == [True] * PARTITIONS,
                one.log_path.exists,
            )
            pids = [wait_for(lambda n=n: one.worker_pid(n), one.log_path.exists) for n in range(PARTITIONS)]
            (tmp_path / "dead").unlink()
            stopped = subprocess.run(
                [ctl, "-c", str(config), "stop", "cloud-registry"], capture_output=True, text=True, check=True
            )
            assert stopped.stdout == "cloud-registry: stopped\n", stopped
            assert group.committed() == load.counts
            assert len(read_lives(tmp_path)) == 200 * PARTITIONS
            assert not any(map(is_running, pids))
            said = (tmp_path / "supervisord.log").read_text()
            assert "stopped: cloud-registry (exit status 0)" in said
            assert "SIGKILL" not in said
        finally:
            supervisord.terminate()
            supervisord.wait(30)
