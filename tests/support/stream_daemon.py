"""A stream as a process of its own: ``python -m tests.support.stream_daemon FILE``; ``StreamDaemon`` starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dmpd.runtime import health
from tests.support import stream_sabotage as sabotage

ROOT = Path(__file__).resolve().parents[2]
NOTE = "tests.support.stream_handlers:note"


class StreamDaemon:
    """Started by ``with``; killed at its end if it still runs. ``status`` is what ``/status`` would show."""

    def __init__(
        self,
        folder,
        bootstrap,
        *,
        name="one",
        handler=NOTE,
        options=None,
        source_of=None,
        kafka=None,
        own_group=False,
        stderr=None,
        **settings,
    ):
        self._own_group, self._stderr = own_group, stderr
        self.folder = Path(folder)
        self.bind = f"unix:{self.folder / name}.sock"
        self.status_path = self.folder / f"{name}.status"
        self.log_path = self.folder / f"{name}.log"
        self.config_path = self.folder / f"{name}.json"
        self.config_path.write_text(
            json.dumps(
                {
                    "bootstrap": bootstrap,
                    "settings": {"session_timeout_s": 2.0} | settings,
                    "handler": handler,
                    "argument": json.dumps({"folder": str(folder)} | (options or {})),
                    "status": str(self.status_path),
                    "bind": self.bind,
                    "source_of": source_of,
                    "kafka": kafka or {},
                }
            )
        )
        self.process = None

    def __enter__(self):
        command = [sys.executable, "-m", "tests.support.stream_daemon", str(self.config_path)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stderr=self._stderr or log,
                stdin=subprocess.DEVNULL,
                start_new_session=self._own_group,
            )
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def log(self):
        return self.log_path.read_text()

    @property
    def is_answering(self):
        try:
            return health.fetch(self.bind, "/healthz")[0] == 200
        except OSError:
            return False

    @property
    def has_ended(self):
        return self.process.poll() is not None

    @property
    def status(self):
        try:
            return json.loads(self.status_path.read_text())
        except FileNotFoundError:
            return {"state": "starting", "partitions": {}}

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def ask(self, path, **arguments):
        """POST; returns the code and the answer."""
        code, body = health.fetch(self.bind, path, method="POST", arguments=arguments, timeout_s=20.0)
        return code, json.loads(body)

    def counted(self, metric):
        """A metric's value, all its labels together; 0 if it was never counted, but one that is declared."""
        _, body = health.fetch(self.bind, "/metrics")
        assert f"# TYPE {metric} ".encode() in body, f"there is no metric {metric}"
        lines = (line.rpartition(" ") for line in body.decode().splitlines() if not line.startswith("#"))
        return sum(float(value) for name, _, value in lines if name.partition("{")[0] == metric)

    def exit_code(self, timeout_s=40):
        return self.process.wait(timeout_s)

    def worker_pid(self, partition):
        return self.status["partitions"].get(str(partition), {}).get("worker_pid")


def wait_for(condition, what, *, timeout_s=30.0, poll_s=0.02):
    """Wait until ``condition()`` is true and return it; fails with ``what`` (text, or called for it) if it never is."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s} s: {what() if callable(what) else what}")
        time.sleep(poll_s)
    return found


def main():
    from dmpd.runtime.lifecycle import Lifecycle
    from dmpd.runtime.log import setup
    from dmpd.runtime.settings import KafkaSettings, LogSettings
    from dmpd.stream.control import Control
    from dmpd.stream.run import run
    from dmpd.stream.settings import StreamSettings

    config = json.loads(Path(sys.argv[1]).read_text())
    lifecycle = Lifecycle("stream")
    lifecycle.install_signals()
    setup(LogSettings(), "stream")

    sabotage.install(Path(config["status"]).parent)
    picture = {}

    class FileStatus:
        def publish(self, settings, partitions, *, commit_unanswered_s):
            whole = {
                "state": lifecycle.state,
                "reason": lifecycle.reason,
                "partitions": {str(n): p for n, p in partitions.items()},
            }
            picture.update(whole)
            temporary = Path(config["status"] + ".new")
            temporary.write_text(json.dumps(whole))
            temporary.replace(config["status"])

    control = Control()
    server = health.HealthServer(
        config["bind"], lifecycle, lambda: picture | {"pid": os.getpid()}, actions=control.actions()
    )
    server.start()
    more = {"source_of": config["source_of"]} if config["source_of"] else {}
    sys.exit(
        run(
            KafkaSettings(bootstrap_servers=config["bootstrap"], options=config["kafka"]),
            StreamSettings(**config["settings"]),
            handler=config["handler"],
            lifecycle=lifecycle,
            handler_argument=config["argument"].encode(),
            status=FileStatus(),
            control=control,
            **more,
        )
    )


if __name__ == "__main__":
    main()
