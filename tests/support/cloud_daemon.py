"""``dmpd cloud-registry`` as a process of its own, on servers of the test."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from dmpd.runtime import health

ROOT = Path(__file__).resolve().parents[2]


class CloudDaemon:
    """Started by ``with``; killed at its end if it still runs. ``dmpd`` runs any other command with the same file."""

    def __init__(self, folder, kafka, database, *, partitions=4, registry=None, timeouts=None, **stream):
        """``registry``, ``timeouts``: more of the sections ``cloud_registry`` and ``database``."""
        self.folder = Path(folder)
        self.topics = {name: kafka.unique(name) for name in ("info", "rsp", "cmd", "info_dead")}
        self.bind = f"unix:{self.folder / 'health.sock'}"
        self.config = self.folder / "dmpd.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
                    "topics": self.topics
                    | {"partitions": partitions, "replication_factor": 1, "min_insync_replicas": 1},
                    "database": {"conninfo": database.conninfo} | (timeouts or {}),
                    "cloud_registry": {
                        "health_bind": self.bind,
                        "stream": {
                            "topic": self.topics["info"],
                            "dead_letter_topic": self.topics["info_dead"],
                            "group": kafka.unique("group"),
                            "session_timeout_s": 6.0,
                        }
                        | stream,
                    }
                    | (registry or {}),
                }
            )
        )
        self.log_path = self.folder / "cloud-registry.log"
        self.process = None

    def dmpd(self, command, *words):
        """Run ``dmpd COMMAND`` to its end; returns the finished process with its output."""
        return subprocess.run(
            self._command(command, *words), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def start(self):
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self._command("cloud-registry"), cwd=ROOT, stderr=log, stdin=subprocess.DEVNULL
            )
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def status(self):
        try:
            _, body = health.fetch(self.bind, "/status")
        except OSError:
            return {"partitions": {}}
        return json.loads(body)

    def counted(self, metric):
        """The value of a metric without labels, or the sum over all labels."""
        _, body = health.fetch(self.bind, "/metrics")
        lines = [line for line in body.decode().splitlines() if line.split("{")[0].split(" ")[0] == metric]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def memory_bytes(self):
        """Of the daemon and all its children: what they would free if they ended (PSS)."""
        pids = [self.process.pid]
        for pid in pids:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, children.read_text().split())
        return sum(_pss_bytes(pid) for pid in pids)

    def worker_pids(self):
        return [part["worker_pid"] for part in self.status["partitions"].values() if part.get("worker_pid")]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def kill_a_worker(self):
        """SIGKILL one worker; False if none runs at the moment."""
        for pid in self.worker_pids():
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def drain(self, timeout_s=40):
        """TERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def _command(self, command, *words):
        return [str(Path(sys.executable).with_name("dmpd")), command, "--config", str(self.config), *words]


def _pss_bytes(pid):
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
