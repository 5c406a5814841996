"""Poison in masses, and an operator's verbs, with real workers on the mock cluster."""

import os
import signal

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support.mock_cluster import MockCluster
from tests.support.stream_daemon import StreamDaemon, wait_for
from tests.support.stream_handlers import handled

TOPIC = "t"
DEAD = "t.dead"
SOURCES = [f"s{n}" for n in range(12)]


@pytest.fixture
def cluster():
    cluster = MockCluster()
    cluster.topic(TOPIC, 2)
    cluster.topic(DEAD, 1)
    yield cluster
    cluster.close()


@pytest.fixture
def producer(cluster):
    return Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 1})


def produce(producer, values, *, partition=0, sources=("s0",)):
    for n, value in enumerate(values):
        producer.produce(TOPIC, value, f"{sources[n % len(sources)]}/{n}", partition)
    assert producer.flush(30) == 0


def daemon(folder, cluster, **more):
    settings = {"topic": TOPIC, "dead_letter_topic": DEAD, "group": "g", "batch_records_max": 100} | more
    return StreamDaemon(
        folder,
        cluster.bootstrap,
        options={"invalid": ["bad"]},
        source_of="tests.support.stream_handlers:first_word",
        **settings,
    )


def committed(cluster, partition):
    client = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "g"})
    offset = client.committed([TopicPartition(TOPIC, partition)], 5)[0].offset
    client.close()
    return offset


def dead_letters(cluster):
    """All there are: (reason, partition, offset, key)."""
    client = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader"})
    end = client.get_watermark_offsets(TopicPartition(DEAD, 0), 10)[1]
    client.assign([TopicPartition(DEAD, 0, 0)])
    found = []
    wait_for(lambda: found.extend(client.consume(500, 0.1)) or len(found) >= end, lambda: f"{len(found)} of {end}")
    client.close()
    headers = [dict(one.headers()) for one in found]
    return [
        (h["dmpd-reason"].decode(), int(h["dmpd-partition"]), int(h["dmpd-offset"]), one.key().decode())
        for h, one in zip(headers, found, strict=True)
    ]


def picture(stream, partition=0):
    return stream.status["partitions"].get(str(partition), {})


def halt(stream, producer):
    """Make partition 0 stand still, with records left in its ring; returns how many were produced."""
    (stream.folder / "block0").touch()
    produce(producer, ["bad"] * 800 + ["good"] * 10, sources=SOURCES)
    wait_for(lambda: picture(stream).get("open_records") == 810, lambda: stream.log)
    (stream.folder / "block0").unlink()
    wait_for(lambda: picture(stream).get("state") == "halted", lambda: stream.log)
    return 810


def test_a_flood_of_poison_from_one_source_is_limited_and_the_others_go_on(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster, dead_letters_per_source_per_minute=50) as stream:
        produce(producer, ["bad"] * 3000, sources=("flood",))
        produce(producer, ["bad", "good"] * 20, sources=("calm", "calm"))
        produce(producer, ["good"] * 100, partition=1)
        wait_for(lambda: committed(cluster, 0) == 3040, lambda: stream.log)
        assert picture(stream)["state"] == "running"
        assert len(handled(tmp_path, 1)) == 100
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    sources = [key.partition("/")[0] for _, _, _, key in dead_letters(cluster)]
    assert (sources.count("flood"), sources.count("calm")) == (50 + 2, 20)  # the limit, and two samples of 2950


def test_poison_from_many_sources_halts_its_partition_alone(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster) as stream:
        count = halt(stream, producer)
        assert "partition 0 is halted at offset" in stream.log
        assert "from 12 sources" in stream.log
        wait_for(lambda: "partition 0 is halted" in stream.status["reason"], lambda: stream.status)
        assert stream.status["state"] == "degraded"
        assert picture(stream)["worker_pid"] is None
        produce(producer, ["good"] * 100, partition=1)
        wait_for(lambda: len(handled(tmp_path, 1)) == 100, lambda: stream.log)
        first = wait_for(lambda: stream.worker_pid(1), lambda: stream.log)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: stream.worker_pid(1) not in (None, first), lambda: stream.log)
        produce(producer, ["good"] * 100)
        assert picture(stream)["state"] == "halted"
        frontier = picture(stream)["next_offset"]
        assert 401 <= frontier <= 501
        assert len(dead_letters(cluster)) == 501
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
        assert f"back to Kafka: 0: {count - frontier} records from offset {frontier}" in stream.log
    assert committed(cluster, 0) == frontier
    assert set(handled(tmp_path, 0)) >= set(range(frontier))


def test_resume_clears_the_window_and_goes_on(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster) as stream:
        count = halt(stream, producer)
        code, answer = stream.ask("/stream/resume", partition=0)
        assert (code, answer["partitions"]["0"]) == (200, {"changed": True, "said": "goes on (was halted)"})
        wait_for(lambda: committed(cluster, 0) == count, lambda: stream.log)
        wait_for(lambda: stream.status["state"] == "ready", lambda: stream.status)
        produce(producer, ["good"])
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [count], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    letters = dead_letters(cluster)
    assert len(letters) == len(set(letters)) == 800  # nothing twice, though batches were
    assert list(dict.fromkeys(handled(tmp_path, 0))) == list(range(count + 1))


def test_skip_makes_dead_letters_of_the_ring_and_goes_on(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster) as stream:
        count = halt(stream, producer)
        code, answer = stream.ask("/stream/skip", all=True)
        assert code == 200
        assert answer["partitions"]["1"] == {"changed": False, "said": "is running: only a halted partition is skipped"}
        assert answer["partitions"]["0"]["changed"]
        wait_for(lambda: committed(cluster, 0) == count, lambda: stream.log)
        produce(producer, ["good"])
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [count], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    letters = dead_letters(cluster)
    judged = [offset for reason, _, offset, _ in letters if reason == "bad"]
    skipped = [offset for reason, _, offset, _ in letters if reason == "skipped"]
    assert (judged, skipped) == (list(range(501)), list(range(501, count)))
    assert handled(tmp_path, 0)[-1] == count


def test_a_paused_partition_is_not_fetched_until_resume(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster) as stream:
        wait_for(lambda: picture(stream).get("worker_pid"), lambda: stream.log)
        assert stream.ask("/stream/pause", partition=0)[1]["partitions"]["0"]["changed"]
        assert not stream.ask("/stream/pause", partition=0)[1]["partitions"]["0"]["changed"]
        wait_for(lambda: picture(stream)["paused"], lambda: stream.log)
        assert picture(stream)["state"] == "paused"
        produce(producer, ["good"] * 50)
        produce(producer, ["good"] * 50, partition=1)
        wait_for(lambda: len(handled(tmp_path, 1)) == 50, lambda: stream.log)
        wait_for(lambda: picture(stream)["lag"] == 50, lambda: stream.log)
        assert handled(tmp_path, 0) == []
        assert stream.status["state"] == "ready"
        assert stream.ask("/stream/resume", all=True)[0] == 200
        wait_for(lambda: handled(tmp_path, 0) == list(range(50)), lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log


def test_post_drain_is_what_term_is(tmp_path, cluster, producer):
    produce(producer, ["good"] * 300)
    with daemon(tmp_path, cluster) as stream:
        wait_for(lambda: handled(tmp_path, 0), lambda: stream.log)
        assert stream.ask("/drain") == (202, {"said": "draining"})
        assert stream.exit_code() == 0, stream.log
    assert committed(cluster, 0) == len(handled(tmp_path, 0))


def test_orders_that_cannot_be_carried_out_are_refused_with_a_sentence(tmp_path, cluster):
    with daemon(tmp_path, cluster) as stream:
        wait_for(lambda: stream.worker_pid(1), lambda: stream.log)
        code, answer = stream.ask("/stream/pause", partition=7)
        assert (code, answer) == (
            409,
            {
                "error": f"partition 7 is not owned here (pid {stream.process.pid} owns 0, 1):"
                " ask the instance that owns it"
            },
        )
        assert stream.ask("/stream/pause")[0] == 400
        assert stream.ask("/stream/pause", partition="x") == (
            400,
            {"error": "Expected `int | null`, got `str` - at `$.partition`"},
        )
        code, answer = stream.ask("/stream/frobnicate", all=True)
        assert (code, answer["error"]) == (404, "there are: POST /drain /stream/pause /stream/resume /stream/skip")
