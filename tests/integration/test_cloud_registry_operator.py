"""What an operator does to a Cloud Registry on a real Kafka: look, pause, replay, drain."""

import json

import pytest
from confluent_kafka import Producer

from dmpd.model.codec import encode
from dmpd.model.record import DeviceRecord
from dmpd.model.topics import info_topic, partition_of
from dmpd.runtime import exit_codes
from tests.support.cloud_daemon import CloudDaemon
from tests.support.messages import RAE, SESSION, checkpoint
from tests.support.rows import migrated
from tests.support.standstill import Dmpctl
from tests.support.stream_daemon import wait_for

pytestmark = pytest.mark.services

PARTITIONS = 4
KEY = info_topic(RAE, SESSION)
HOME = partition_of(RAE, PARTITIONS)


def test_an_operator_sees_pauses_replays_and_drains(tmp_path, kafka, postgres, capsys):
    often = {"retention": {"interval_s": 0.2}}
    daemon = CloudDaemon(tmp_path, kafka, postgres, partitions=PARTITIONS, registry=often)
    assert daemon.dmpd("migrate").returncode == exit_codes.OK
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    ctl = Dmpctl(daemon.config, capsys)

    def log():
        return daemon.log_path.read_text()

    def produce(value):
        producer.produce(daemon.topics["info"], value, KEY, HOME, headers=[("mqtt-received-at", b"now")])
        assert producer.flush(20) == 0

    def listed(*words):
        ctl("dead-letters", "list", "--json", *words)
        return json.loads(ctl.out)

    with migrated(postgres) as connection, daemon:
        connection.execute(
            "INSERT INTO device_event VALUES ('R-old', 'rae', now(), 1, 'x', 1, '{}', now() - INTERVAL '90 days')"
        )
        wait_for(lambda: connection.execute("SELECT count(*) FROM device_event").fetchone() == (0,), log)
        produce(b"{")
        [letter] = wait_for(lambda: listed("--source", RAE, "--since", "1h", "--partition", str(HOME)), log)
        assert (letter["reason"], letter["value"], letter["key"], letter["replayed"]) == ("malformed", "{", KEY, 0)
        assert listed("--since", "2099-01-01T00:00:00Z") == []
        assert listed("--source", "another") == []

        place = f"{letter['partition']}/{letter['offset']}"
        assert ctl("dead-letters", "replay", "--letter", place) == exit_codes.OK
        [again] = wait_for(lambda: [one for one in listed() if one["replayed"]], log)
        assert (again["replayed"], again["value"], again["headers"]) == (1, "{", [["mqtt-received-at", "now"]])
        assert again["origin_partition"] == HOME

        assert ctl("stream", "pause", "--partition", str(HOME)) == exit_codes.OK
        produce(encode(checkpoint(1, DeviceRecord(state="online"), seq=1)))
        wait_for(lambda: daemon.status["partitions"][str(HOME)]["lag"] == 1, log)
        assert ctl("stream", "status") == exit_codes.DIFFERENT
        assert "paused" in ctl.out
        assert connection.execute("SELECT count(*) FROM device_session").fetchone() == (0,)
        assert ctl("stream", "resume", "--all") == exit_codes.OK
        wait_for(lambda: connection.execute("SELECT count(*) FROM device_session").fetchone() == (1,), log)
        wait_for(lambda: ctl("stream", "status") == exit_codes.OK, log)

        assert ctl("drain", "cloud-registry") == exit_codes.OK
        assert daemon.process.wait(20) == exit_codes.OK, log()
