"""``dmpctl explain`` on a real Kafka and database: the record behind a row, what waits, its letter, its request."""

import json
import time

import pytest
import yaml

from dmpd.cli import dmpctl, kafka_evidence
from dmpd.model.requests import REGISTRY, request, request_record
from dmpd.model.topics import info_topic, partition_of
from dmpd.runtime import exit_codes
from dmpd.runtime.kafka import KafkaUnreachableError, Producer
from dmpd.runtime.kafka_admin import group_lag
from tests.support.messages import AT, RAE, SESSION, change, checkpoint
from tests.support.rows import OutputTwin, make_handler, migrated, record_of

pytestmark = pytest.mark.services

PARTITIONS = 2
RECEIVED = ("mqtt-received-at", b"2026-11-25T04:00:00.200Z")


@pytest.fixture
def topics(kafka):
    names = {name: kafka.unique(name) for name in ("info", "rsp", "cmd", "info_dead")}
    for name in names.values():
        kafka.create_topic(name, partitions=PARTITIONS)
    return names


@pytest.fixture
def config(tmp_path, kafka, postgres, topics):
    stream = {"topic": topics["info"], "dead_letter_topic": topics["info_dead"], "group": kafka.unique("group")}
    path = tmp_path / "dmpd.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
                "topics": topics,
                "database": {"conninfo": postgres.conninfo},
                "cloud_registry": {"stream": stream},
            }
        )
    )
    return path


@pytest.fixture
def produce(kafka):
    producer = Producer(kafka.settings, "test")

    def deliver(topic, key, value, headers=()):
        refused = []
        producer.produce(
            topic,
            key=key,
            value=value,
            headers=headers,
            partition=partition_of(RAE, PARTITIONS),
            on_delivery=refused.append,
        )
        assert producer.flush(30) == 0
        assert refused == [None]

    yield deliver
    producer.close()


def until_groups_are_answered(kafka, config, topics):
    """A Kafka that started just now does not know its groups yet."""
    group = yaml.safe_load(config.read_text())["cloud_registry"]["stream"]["group"]
    deadline_s = time.monotonic() + 60.0
    while True:
        try:
            assert sum(group_lag(kafka.settings, group, topics["info"]).values()) == 3
        except KafkaUnreachableError:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        else:
            return


def nobody_there(*_, **__):
    raise KafkaUnreachableError("nobody there")


def explained(config, capsys):
    assert dmpctl.main(["explain", "--config", str(config), SESSION, "--json"]) == exit_codes.OK
    return json.loads(capsys.readouterr().out)


def test_explain(config, topics, kafka, postgres, produce, capsys, monkeypatch):
    key = info_topic(RAE, SESSION).encode()
    applied = [record_of(message, offset, [RECEIVED]) for offset, message in enumerate((checkpoint(1), change(3)))]
    waits = record_of(change(4), 2)
    for record in (*applied, waits):
        produce(topics["info"], record.key, record.value, record.headers)
    produce(topics["info_dead"], key, b"{", [("dmpd-reason", b"malformed"), ("dmpd-detail", b"cut off")])
    said = request_record(request("checkpoint", rae=RAE, session=SESSION, request_id="r1", at=AT), REGISTRY)
    produce(topics["cmd"], said.key, said.value, said.headers)

    until_groups_are_answered(kafka, config, topics)
    with migrated(postgres):
        handler = make_handler(postgres, partition=partition_of(RAE, PARTITIONS))
        handler.handle(applied, OutputTwin())
        handler.close()
        found = explained(config, capsys)
        assert dmpctl.main(["explain", "--config", str(config), SESSION[:8]]) == exit_codes.OK
        shown = capsys.readouterr().out

        monkeypatch.setattr(kafka_evidence, "collect", nobody_there)
        without = explained(config, capsys)

    in_kafka = found["kafka"]
    assert in_kafka is not None, found["why"]
    assert (in_kafka["applied"]["kind"], in_kafka["applied"]["rev"]) == ("change", 3)
    assert [hop["clock"] for hop in found["hops"]] == ["RAE", "bridge", "Kafka", "database"]
    assert found["hops"][1]["after_s"] == pytest.approx(0.077)
    assert in_kafka["pending"] == [{"offset": 2, "kind": "change", "rev": 4}]
    assert (in_kafka["letter"]["reason"], in_kafka["letter"]["detail"]) == ("malformed", "cut off")
    assert in_kafka["asked_at"] is not None
    for words in (
        "The row is stale: something before rev 3 was missed",
        "A checkpoint was asked for at",
        "a change of rev 3",
        "1 newer record of this device",
        "malformed: cut off",
        "has never said how it is",
        "received by the bridge",
    ):
        assert words in shown
    assert without["kafka"] is None
    assert "What Kafka has is not known: nobody there" in without["why"]
