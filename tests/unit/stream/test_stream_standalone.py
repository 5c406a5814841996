"""The command line of ``dmpd stream-run``, and what it says when nobody answers."""

import argparse
import socket

import pytest

from dmpd.cli import dmpd, stream_run
from dmpd.lab.server import free_ports
from dmpd.runtime import exit_codes
from dmpd.runtime.config import ConfigError
from dmpd.runtime.kafka import KafkaUnreachableError
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import standalone
from dmpd.stream.settings import StreamSettings
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


SAME = "dead_letter_topic: expected another topic than the one that is processed, got t for both"


def test_dead_letters_never_go_to_the_topic_itself(capsys):
    with pytest.raises(ValueError, match=SAME):
        StreamSettings(topic="t", dead_letter_topic="t")
    with pytest.raises(ConfigError, match=SAME):
        config_of("--dead-letter-topic", "t")
    words = ["stream-run", "h:make", "--topic", "t", "--group", "g", "--dead-letter-topic", "t"]
    assert dmpd.main(words) == exit_codes.CONFIG
    assert SAME in capsys.readouterr().err


@pytest.mark.parametrize(
    "bind", ["foo", "", ":", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:\u0661", "unix:", "foo:"]
)
def test_a_bind_that_is_none_is_wrong_usage(bind, capsys):
    with pytest.raises(SystemExit) as ended:
        dmpd.main(["stream-run", "h:make", "--topic", "t", "--group", "g", "--health", bind])
    assert ended.value.code == exit_codes.USAGE
    assert "--health: expected " in capsys.readouterr().err


def test_where_nobody_can_listen_is_a_sentence(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(standalone.Lifecycle, "install_signals", lambda self: None)
    file = tmp_path / "file"
    file.write_text("precious")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for bind in (taken, "unix:/nonexistent/x", f"unix:{tmp_path}/{'x' * 200}", f"unix:{file}", f"{'x' * 70}:1"):
            caplog.clear()
            code = standalone.run(StreamConfig(), handler="h:make", argument=b"", health_bind=bind)
            assert code == exit_codes.CONFIG
            [said] = [one.getMessage() for one in caplog.records]
            assert said.startswith(f"health: cannot listen at {bind}: ")
            assert not any(one.exc_info for one in caplog.records)
    assert file.read_text() == "precious"
