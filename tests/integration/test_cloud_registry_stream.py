"""Kafka to PostgreSQL through the real daemon: nothing lost, nothing twice, whoever is killed meanwhile."""

import time

import msgspec
import pytest
from confluent_kafka import Producer
from msgspec import Raw

from dmpd.cloud_registry.same_json import same_record
from dmpd.model.apply import apply_message
from dmpd.model.codec import encode
from dmpd.model.record import DeviceRecord, RecordPatch
from dmpd.model.topics import info_topic, partition_of
from dmpd.runtime import exit_codes
from dmpd.runtime.kafka_reader import TopicReader
from tests.support.cloud_daemon import CloudDaemon
from tests.support.messages import SESSION, change, checkpoint, session_id
from tests.support.rows import migrated, rows_of
from tests.support.services import CRDB_URL

pytestmark = pytest.mark.services

RAES = [f"R-{number}" for number in range(8)]
SESSIONS_PER_RAE = 25
REVS = 25
PARTITIONS = 4


def history():
    """5,000 messages: each session's first as a checkpoint, then changes of one or two attributes and the state."""
    for rev in range(1, REVS + 1):
        for place, rae in enumerate(RAES):
            for number in range(SESSIONS_PER_RAE):
                session = session_id(place * 1000 + number)
                attributes = {f"a{rev % 4}": Raw(str(rev * number).encode()), "rev": Raw(str(rev).encode())}
                state = ("online", "asleep")[(rev + number) % 2]
                if rev == 1:
                    said = checkpoint(1, DeviceRecord(attributes=attributes, state=state), session=session, seq=1)
                else:
                    patch = RecordPatch(attributes=attributes, state=state)
                    said = change(rev, patch=patch, session=session, seq=rev)
                yield msgspec.structs.replace(said, rae=rae)


def produce(producer, topic, messages):
    for message in messages:
        key = info_topic(message.rae, message.session)
        producer.produce(topic, encode(message), key.encode(), partition_of(message.rae, PARTITIONS))
        producer.poll(0)
    assert producer.flush(20) == 0


def wait_for(condition, what, timeout_s=40):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def daemon(tmp_path, kafka, postgres):
    daemon = CloudDaemon(tmp_path, kafka, postgres, partitions=PARTITIONS, batch_records_max=200)
    done = daemon.dmpd("migrate")
    assert done.returncode == exit_codes.OK, done.stderr
    return daemon


def test_migrate_says_what_is_there_and_what_differs(daemon):
    again = daemon.dmpd("migrate")
    assert again.returncode == exit_codes.OK
    assert "up to date" in again.stdout
    assert again.stdout.count("there, 4 partitions") == 4
    assert again.stderr == ""
    daemon.config.write_text(daemon.config.read_text().replace("partitions: 4", "partitions: 6"))
    other = daemon.dmpd("migrate", "--only", "kafka")
    assert other.returncode == exit_codes.OK
    assert "partitions is 4, configured 6" in other.stderr


def test_refuses_a_database_without_tables_or_with_those_of_a_later_version(tmp_path, kafka, postgres):
    with CloudDaemon(tmp_path, kafka, postgres) as daemon:
        assert daemon.process.wait(30) == exit_codes.CONFIG
    assert "run 'dmpd migrate' first" in daemon.log_path.read_text()
    with migrated(postgres) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    with daemon:
        assert daemon.process.wait(30) == exit_codes.CONFIG
    assert "the database's schema is 99, this dmpd knows only" in daemon.log_path.read_text()


def test_rows_equal_the_model_whoever_is_killed(daemon, kafka, postgres):
    messages = list(history())
    assert len(messages) == 5000
    expected = {}
    for message in messages:
        expected[message.session], _ = apply_message(expected.get(message.session), message)
    topic = daemon.topics["info"]
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5})
    with migrated(postgres) as connection, daemon:

        def revs():
            return connection.execute("SELECT coalesce(sum(rev), 0) FROM device_session").fetchone()[0]

        produce(producer, topic, messages[:1000])
        wait_for(lambda: revs() == 1000, "the first 1,000 in the database")
        produce(producer, topic, messages[1000:2500])
        producer.produce(topic, b"{", info_topic(RAES[0], SESSION).encode(), 0)
        wait_for(daemon.kill_a_worker, "a worker to kill")
        wait_for(lambda: revs() == 2500, "2,500 in the database after a worker's death")
        produce(producer, topic, messages[2500:4000])
        daemon.kill()
        daemon.start()
        produce(producer, topic, messages[4000:4500])
        wait_for(lambda: revs() >= 3000, "the next parent at work")
        if not CRDB_URL:  # which has no such function
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'dmpd-cloud-registry-%'"
            )
        produce(producer, topic, messages[4500:])
        wait_for(lambda: revs() == 5000, "everything in the database")
        assert daemon.drain() == exit_codes.OK, daemon.log_path.read_text()[-3000:]
        assert "the database runs with fsync = off" in daemon.log_path.read_text(), "as the tests' cluster does"
        rows = rows_of(connection)
        (states,) = connection.execute("SELECT sum(coalesce((detail->>'passed')::int, 1)) FROM device_event").fetchone()
    assert rows.keys() == expected.keys()
    for session, row in rows.items():
        assert same_record(row.record, expected[session].record)
        assert msgspec.structs.replace(row, record=expected[session].record) == expected[session]
    assert states == 5000, "each message changed the state"
    reader = TopicReader(kafka.settings, daemon.topics["info_dead"], start="beginning")
    dead = reader.read(5.0, 100)
    reader.close()
    assert {record.value for record in dead} == {b"{"}
    assert {dict(record.headers)["dmpd-reason"] for record in dead} == {b"malformed"}
