"""``dmpd stream-run`` as the README tells it: its blocks are run as they stand there; and its errors."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support import document_blocks
from tests.support.stream_daemon import wait_for

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sys.executable).parent
PARTITIONS = 3


def readme_blocks():
    """The handler and the commands of the README's section."""
    text = (ROOT / "README.md").read_text()
    section = text.partition("## Process any topic with dmpd.stream")[2].partition("\n## ")[0]
    (handler,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (commands,) = document_blocks.of_kind("tests/integration/test_stream_run.py")
    return handler, commands.text


class StreamRun:
    """A command line with ``dmpd stream-run`` in it, in a shell; ended by KILL at the end of ``with``."""

    def __init__(self, folder, commands):
        self._folder = folder
        self._commands = commands
        self._log = folder / "log"

    def __enter__(self):
        environment = os.environ | {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
        with self._log.open("wb") as log:
            self.shell = subprocess.Popen(
                ["sh", "-e", "-c", self._commands],
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_):
        if self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGKILL)
        self.shell.wait()

    @property
    def log(self):
        return self._log.read_text()

    def stop(self, number):
        """Send a signal to dmpd, which is the shell, or its child."""
        children = Path(f"/proc/{self.shell.pid}/task/{self.shell.pid}/children").read_text().split()
        shell_is_it = b"stream-run" in Path(f"/proc/{self.shell.pid}/cmdline").read_bytes().split(b"\0")
        os.kill(self.shell.pid if shell_is_it else int(children[0]), number)


def run_once(folder, *arguments):
    command = [SCRIPTS / "dmpd", "stream-run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def set_variable(commands, name, value):
    changed, count = re.subn(rf"^export {name}=\S+", f"export {name}={value}", commands, flags=re.MULTILINE)
    assert count == 1
    return changed


def produce(bootstrap, topic, values):
    producer = Producer({"bootstrap.servers": bootstrap})
    for n, value in enumerate(values):
        producer.produce(topic, value, b"key", n % PARTITIONS)
    assert producer.flush(30) == 0


def committed(kafka, group, topic):
    client = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    found = client.committed([TopicPartition(topic, n) for n in range(PARTITIONS)], timeout=30)
    client.close()
    return [one.offset for one in found]


def reasons(kafka, topic):
    """Of the dead letters, when there are some."""
    client = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "any"})
    client.assign([TopicPartition(topic, 0, 0)])
    letters = wait_for(lambda: client.consume(1, 0.1), "no dead letter")
    client.close()
    return [dict(letter.headers())["dmpd-reason"] for letter in letters]


def test_the_handler_of_the_readme_is_short():
    handler, _ = readme_blocks()
    assert sum(bool(line.strip()) for line in handler.splitlines()) <= 15


def test_the_readme_works_as_written(tmp_path, kafka):
    handler, commands = readme_blocks()
    topic = kafka.create_topic(partitions=PARTITIONS)
    commands = set_variable(set_variable(commands, "KAFKA", kafka.bootstrap_servers), "TOPIC", topic)
    (tmp_path / "my_handler.py").write_text(handler)
    produce(kafka.bootstrap_servers, topic, [b"one", b"two", b"three", b"four", b"", b"six"])
    expected = {"0.txt": "0 one\n1 four\n", "1.txt": "0 two\n", "2.txt": "0 three\n1 six\n"}

    def saved():
        return {path.name: path.read_text() for path in (tmp_path / "saved").glob("*.txt")}

    with StreamRun(tmp_path, commands) as stream:
        wait_for(lambda: saved() == expected, lambda: f"{saved()} {stream.log}", timeout_s=120)
        stream.stop(signal.SIGINT)
        assert stream.shell.wait(60) == 0, stream.log
        assert "partition 1 is done" in stream.log
    assert committed(kafka, "savers", topic) == [2, 2, 2]
    assert reasons(kafka, f"{topic}.dead") == [b"empty"]


def test_a_handler_that_is_not_there_is_said_in_a_sentence(tmp_path, kafka):
    topic = kafka.create_topic()
    to = ["--topic", topic, "--group", kafka.unique("g"), "--bootstrap", kafka.bootstrap_servers]
    done = run_once(tmp_path, "nowhere:make", *to)
    assert (done.returncode, "Traceback" in done.stderr) == (78, False)
    assert "cannot import nowhere:make: ModuleNotFoundError: No module named 'nowhere'" in done.stderr


def test_a_topic_that_is_not_there_is_said_and_not_made(tmp_path, kafka):
    absent = kafka.unique("absent")
    to = ["--topic", absent, "--group", kafka.unique("g"), "--bootstrap", kafka.bootstrap_servers]
    done = run_once(tmp_path, "my_handler:make", *to)
    assert (done.returncode, "Traceback" in done.stderr) == (78, False)
    assert f"Kafka at {kafka.bootstrap_servers} has no topic {absent}" in done.stderr
