"""The stream on a real Kafka that takes records away, adds partitions, ends in markers, or does not answer."""

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from tests.support.services import public_folder, start_kafka
from tests.support.stream_daemon import StreamDaemon, wait_for
from tests.support.stream_handlers import handled

pytestmark = pytest.mark.services

CURES = ("resets", "stuck_workers", "condemned_records", "worker_deaths", "dead_letters")


def produce(kafka, topic, count, *, partition=0, size=400, **config):
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5} | config)
    for n in range(count):
        producer.produce(topic, str(n).zfill(size), b"key", partition)
    assert producer.flush(60) == 0


def daemon(folder, service, topic, *, kafka=None, **more):
    settings = {"topic": topic, "dead_letter_topic": f"{topic}-dead", "group": topic, "session_timeout_s": 6.0} | more
    return StreamDaemon(folder, service.bootstrap_servers, kafka=kafka, **settings)


def topic_of(kafka, partitions=1):
    name = kafka.create_topic(partitions=partitions)
    kafka.create_topic(f"{name}-dead")
    return name


def zero(stream):
    return stream.status["partitions"].get("0", {})


def cures(stream):
    return {name: stream.counted(f"dmpd_stream_{name}_total") for name in CURES}


def test_retention_that_overtakes_a_full_ring_costs_the_lost_range_alone(tmp_path, kafka):
    topic = topic_of(kafka)
    (tmp_path / "block").touch()
    with daemon(tmp_path, kafka, topic, ring_bytes=1 << 18, max_record_bytes=1 << 14) as stream:
        produce(kafka, topic, 3000)
        wait_for(lambda: zero(stream).get("paused") and zero(stream)["lag"] == 3000, lambda: stream.log)
        worker, held = zero(stream)["worker_pid"], zero(stream)["open_records"]
        assert 0 < held < 2000
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        deletions = admin.delete_records([TopicPartition(topic, 0, 2500)], request_timeout=20, operation_timeout=15)
        assert [done.result(30).low_watermark for done in deletions.values()] == [2500]
        (tmp_path / "block").unlink()
        wait_for(lambda: zero(stream)["committed"] == 3000, lambda: stream.log)
        assert handled(tmp_path, 0) == [*range(held), *range(2500, 3000)]
        assert f"Kafka no longer has {2500 - held} offsets before 2500" in stream.log
        assert zero(stream)["lost_offsets"] == stream.counted("dmpd_stream_lost_offsets_total") == 2500 - held
        assert zero(stream)["worker_pid"] == worker
        assert cures(stream) == dict.fromkeys(CURES, 0)


def test_partitions_added_at_run_time_are_read_from_their_beginning(tmp_path, kafka):
    topic = topic_of(kafka)
    with daemon(tmp_path, kafka, topic, kafka={"topic.metadata.refresh.interval.ms": 3000}) as stream:
        produce(kafka, topic, 10)
        wait_for(lambda: len(handled(tmp_path, 0)) == 10, lambda: stream.log)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(20)
        for partition in (1, 2):  # before the consumer knows of them
            produce(kafka, topic, 10, partition=partition)
        for partition in (1, 2):
            wait_for(lambda: handled(tmp_path, partition) == list(range(10)), lambda: stream.log)  # noqa: B023
        produce(kafka, topic, 10)
        wait_for(lambda: handled(tmp_path, 0) == list(range(20)), lambda: stream.log)
        assert zero(stream)["restarts"] == 0


@pytest.mark.slow
def test_markers_at_the_end_of_the_log_are_no_reason_to_heal(tmp_path, kafka):
    """A marker's offset never comes: lag by records stays 1, by seconds it is 0, and nobody is blamed."""
    topic = topic_of(kafka)
    haste = {"fetch_silence_timeout_s": 2.0, "stuck_timeout_s": 1.0, "sink_silence_timeout_s": 1.0}
    with daemon(tmp_path, kafka, topic, **haste, nothing_moves_timeout_s=4.0) as stream:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, b"0", b"key", 0)
        producer.commit_transaction(30)
        wait_for(lambda: zero(stream).get("committed") == 1, lambda: stream.log)
        wait_for(lambda: zero(stream)["lag"] == 1 and zero(stream)["lag_s"] == 0, lambda: stream.status)
        producer.begin_transaction()
        producer.produce(topic, b"1", b"key", 0)
        producer.flush(30)  # open: nobody can read it, so it is no lag
        wait_for(lambda: stream.counted("dmpd_stream_commits_total") >= 1, lambda: stream.log)
        count_looks(stream, 8)
        assert zero(stream)["lag"] == 1
        producer.abort_transaction(30)
        count_looks(stream, 8)
        assert cures(stream) == dict.fromkeys(CURES, 0)
        assert stream.process.poll() is None
        produce(kafka, topic, 1)
        wait_for(lambda: handled(tmp_path, 0) == [0, 4], lambda: stream.log)


def count_looks(stream, count):
    """Wait until the stream has looked at itself so often; each look publishes its status anew."""
    for _ in range(count):
        before = stream.status_path.stat().st_mtime_ns
        wait_for(lambda: stream.status_path.stat().st_mtime_ns != before, lambda: stream.log)  # noqa: B023


@pytest.mark.slow
def test_a_broker_that_does_not_answer_triggers_nothing(tmp_path):
    """Frozen for several times every timer, with records in the rings and more to fetch."""
    with public_folder() as folder, start_kafka(folder) as kafka:
        topic = topic_of(kafka, partitions=2)
        haste = {"fetch_silence_timeout_s": 4.0, "stuck_timeout_s": 4.0, "sink_silence_timeout_s": 4.0}
        with daemon(tmp_path, kafka, topic, **haste, nothing_moves_timeout_s=8.0) as stream:
            produce(kafka, topic, 1000)
            wait_for(lambda: len(handled(tmp_path, 0)) == 1000, lambda: stream.log)
            (tmp_path / "block").touch()
            produce(kafka, topic, 1000)
            wait_for(lambda: zero(stream)["open_records"] > 0, lambda: stream.log)
            kafka.process.freeze()
            (tmp_path / "block").unlink()
            wait_for(lambda: len(handled(tmp_path, 0)) == 2000, lambda: stream.log)
            count_looks(stream, 20)
            assert cures(stream) == dict.fromkeys(CURES, 0)
            assert zero(stream).get("lag") is None, "nobody knows"
            kafka.process.thaw()
            for partition in (0, 1):
                produce(kafka, topic, 1000, partition=partition)
            wait_for(lambda: len(set(handled(tmp_path, 0))) == 3000, lambda: stream.log, timeout_s=60)
            wait_for(lambda: len(set(handled(tmp_path, 1))) == 1000, lambda: stream.log, timeout_s=60)
            wait_for(lambda: zero(stream).get("committed") == 3000, lambda: stream.log, timeout_s=60)
            assert stream.counted("dmpd_stream_resets_total") == 0
            assert stream.counted("dmpd_stream_stuck_workers_total") == 0
            assert stream.counted("dmpd_stream_condemned_records_total") == 0
            assert stream.process.poll() is None
