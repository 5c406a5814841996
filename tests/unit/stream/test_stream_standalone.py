"""The command line of ``dmpd stream-run``, and what it says when nobody answers."""

import argparse

import pytest

from dmpd.cli import stream_run
from dmpd.lab.server import free_ports
from dmpd.runtime.kafka import KafkaUnreachableError
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import standalone
from dmpd.stream.standalone import StreamConfig


def config_of(*arguments):
    parser = argparse.ArgumentParser()
    stream_run.configure(parser)
    return stream_run.config_of(parser.parse_args(["h:make", "--topic", "t", "--group", "g", *arguments]))


def test_the_command_line_alone_is_enough():
    config = config_of()
    assert (config.stream.topic, config.stream.group, config.stream.dead_letter_topic) == ("t", "g", "t.dead")
    assert config.kafka == KafkaSettings()


def test_the_command_line_stands_above_the_file(tmp_path):
    file = tmp_path / "stream.yaml"
    file.write_text(
        "kafka:\n  bootstrap_servers: other:1\n  username: me\nstream:\n  topic: other\n  commit_interval_s: 5\n"
    )
    assert config_of("--config", str(file)).kafka.bootstrap_servers == "other:1"
    config = config_of("--config", str(file), "--bootstrap", "here:2", "--dead-letter-topic", "d")
    assert (config.kafka.bootstrap_servers, config.kafka.username) == ("here:2", "me")
    assert (config.stream.topic, config.stream.dead_letter_topic) == ("t", "d")
    assert config.stream.commit_interval_s == 5


def test_a_broker_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(standalone.Lifecycle, "install_signals", lambda self: None)
    config = StreamConfig(kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}"))
    with pytest.raises(KafkaUnreachableError, match=config.kafka.bootstrap_servers):
        standalone.run(config, handler="h:make", argument=b"", reach_s=0.3)
