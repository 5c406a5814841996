"""The stream watches itself: fetching that stopped without a word, nothing that moves, outages that excuse it all."""

import pytest
from confluent_kafka import Producer

from tests.support import mock_cluster
from tests.support.stream_daemon import StreamDaemon, wait_for
from tests.support.stream_handlers import handled

TOPIC, DEAD = "t", "t.dead"
HASTE = {"fetch_silence_timeout_s": 1.0, "stuck_timeout_s": 1.0, "sink_silence_timeout_s": 2.0}
CURES = ("resets", "stuck_workers", "condemned_records", "worker_deaths", "client_rebuilds", "dead_letters")


@pytest.fixture
def cluster():
    with mock_cluster.running({TOPIC: 2, DEAD: 1}) as cluster:
        yield cluster


@pytest.fixture
def producer(cluster):
    return Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 1})


def produce(producer, count, *, partition=0):
    for n in range(count):
        producer.produce(TOPIC, str(n), b"key", partition)
    assert producer.flush(10) == 0


def daemon(folder, cluster, **more):
    settings = {"topic": TOPIC, "dead_letter_topic": DEAD, "group": "g"} | HASTE | more
    return StreamDaemon(folder, cluster.bootstrap, **settings)


def silence(folder, cure):
    (folder / "silence").write_text(cure)
    wait_for((folder / "silent").exists, "the client is silent")


def cures(stream):
    return {name: stream.counted(f"dmpd_stream_{name}_total") for name in CURES}


@pytest.mark.parametrize(("cure", "resets"), [("seek", 1), ("assign", 2)])
def test_a_partition_that_is_silently_not_fetched_is_begun_anew(tmp_path, cluster, producer, cure, resets):
    with daemon(tmp_path, cluster) as stream:
        produce(producer, 10)
        wait_for(lambda: len(handled(tmp_path, 0)) == 10, lambda: stream.log)
        silence(tmp_path, cure)
        produce(producer, 10)
        produce(producer, 10, partition=1)
        wait_for(lambda: len(handled(tmp_path, 1)) == 10, lambda: stream.log)
        wait_for(lambda: len(handled(tmp_path, 0)) == 20, lambda: stream.log)
        wait_for(lambda: stream.status["partitions"]["0"]["committed"] == 20, lambda: stream.log)
        assert stream.counted("dmpd_stream_resets_total") == resets
        assert "partition 0: fetch_stopped: the client fetches nothing at 10 for 1 s, the log ends at 20" in stream.log
        assert stream.status["partitions"]["1"]["restarts"] == 0
    assert handled(tmp_path, 0) == list(range(20))


def test_when_no_cure_helps_the_process_ends_and_says_why(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster, nothing_moves_timeout_s=4.0) as stream:
        produce(producer, 10)
        wait_for(lambda: len(handled(tmp_path, 0)) == 10, lambda: stream.log)
        silence(tmp_path, "none")
        produce(producer, 10)
        assert stream.exit_code() == 70
        assert stream.log.count("fetch_stopped") == 2, "cured twice, then left alone"
        assert "nothing has moved for 4 s although Kafka answers" in stream.log
        assert "partitions with work: 0\n" in stream.log


@pytest.mark.slow
def test_an_outage_of_the_sink_triggers_nothing(tmp_path, cluster, producer):
    """Longer than every timer, and each attempt said."""
    (tmp_path / "block").touch()
    settings = {"nothing_moves_timeout_s": 6.0, "stuck_timeout_s": 1.5, "sink_silence_timeout_s": 3.0}
    with daemon(tmp_path, cluster, **settings, ring_bytes=1 << 16, max_record_bytes=1 << 14) as stream:
        produce(producer, 4000)
        produce(producer, 10, partition=1)
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("paused"), lambda: stream.log)
        wait_for(lambda: stream.status["partitions"]["0"]["oldest_age_s"] > 8, lambda: stream.log)
        zero = stream.status["partitions"]["0"]
        assert zero["paused_s"] > 6
        assert zero["lag"] == 4000
        assert zero["lag_s"] >= zero["oldest_age_s"]
        assert zero["eta_s"] is None
        assert cures(stream) == dict.fromkeys(CURES, 0)
        (tmp_path / "block").unlink()
        wait_for(lambda: len(handled(tmp_path, 0)) >= 4000 and len(handled(tmp_path, 1)) == 10, lambda: stream.log)
        wait_for(lambda: stream.status["partitions"]["0"]["lag"] == 0, lambda: stream.status)
        assert cures(stream) == dict.fromkeys(CURES, 0)
        assert stream.status["partitions"]["0"]["lag_s"] == 0
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert handled(tmp_path, 0) == list(range(4000))
