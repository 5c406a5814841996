"""The parent with real workers on the mock cluster: the way of records, and every kind of end."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support import mock_cluster
from tests.support.mock_cluster import produce_with_header_name
from tests.support.stream_daemon import StreamDaemon, wait_for
from tests.support.stream_handlers import handled

TOPIC = "t"
DEAD = "t.dead"


@pytest.fixture
def cluster():
    with mock_cluster.running({TOPIC: 2, DEAD: 1}) as cluster:
        yield cluster


@pytest.fixture
def producer(cluster):
    return Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 1})


def produce(producer, values, *, partition=0, headers=None):
    for value in values:
        producer.produce(TOPIC, value, b"key", partition, headers=headers)
    assert producer.flush(10) == 0


def daemon(folder, cluster, **more):
    settings = {"topic": TOPIC, "dead_letter_topic": DEAD, "group": "g"} | more
    return StreamDaemon(folder, cluster.bootstrap, **settings)


def committed(cluster, partition):
    client = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "g"})
    offset = client.committed([TopicPartition(TOPIC, partition)], 5)[0].offset
    client.close()
    return offset


def read_all(cluster, topic, count):
    client = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader"})
    client.assign([TopicPartition(topic, 0, 0)])
    found = []
    wait_for(lambda: found.extend(client.consume(100, 0.1)) or len(found) >= count, lambda: f"{len(found)} of {count}")
    client.close()
    return found


def test_records_are_handled_in_order_and_committed(tmp_path, cluster, producer):
    produce(producer, [str(n) for n in range(3000)])
    produce(producer, [str(n) for n in range(500)], partition=1)
    with daemon(tmp_path, cluster) as stream:
        wait_for(lambda: len(handled(tmp_path, 0)) >= 3000 and len(handled(tmp_path, 1)) >= 500, lambda: stream.log)
        produce(producer, ["more"])
        wait_for(lambda: len(handled(tmp_path, 0)) >= 3001, lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert handled(tmp_path, 0) == list(range(3001))
    assert handled(tmp_path, 1) == list(range(500))
    assert (committed(cluster, 0), committed(cluster, 1)) == (3001, 500)
    assert (tmp_path / "0.closed").exists()


def test_a_header_that_is_no_text_costs_nobody_anything(tmp_path, cluster, producer):
    """The client cannot give such headers and raises; the record comes with one that says so."""
    produce(producer, ["before"], headers=[("h", b"x")])
    produce_with_header_name(cluster.bootstrap, TOPIC, b"header_names", b"\xff\xfe")
    produce(producer, ["after"])
    with daemon(tmp_path, cluster, options={"invalid_headers_of": "header_names"}) as stream:
        wait_for(lambda: len(handled(tmp_path, 0)) >= 3, lambda: stream.log)
        [letter] = read_all(cluster, DEAD, 1)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert handled(tmp_path, 0) == [0, 1, 2]
    assert dict(letter.headers())["dmpd-detail"] == b"dmpd-headers-unreadable"


def test_a_killed_worker_is_replaced_and_gets_the_ring_again(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster) as stream:
        (tmp_path / "block").touch()
        produce(producer, [str(n) for n in range(1000)])
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("ring_used_bytes"), lambda: stream.log)
        first = wait_for(lambda: stream.worker_pid(0), lambda: stream.log)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: stream.worker_pid(0) not in (None, first), lambda: stream.log)
        (tmp_path / "block").unlink()
        wait_for(lambda: len(handled(tmp_path, 0)) >= 1000, lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
        assert stream.status["partitions"]["0"]["restarts"] == 1
    assert handled(tmp_path, 0) == list(range(1000))
    assert committed(cluster, 0) == 1000


def test_a_worker_that_kills_itself_in_a_batch_repeats_it(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster, options={"die_once": "77"}) as stream:
        produce(producer, [str(n) for n in range(300)])
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [299], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert sorted(set(handled(tmp_path, 0))) == list(range(300))
    assert committed(cluster, 0) == 300


@pytest.mark.parametrize("harm", ["die_at", "hang_at"])
def test_a_record_that_ends_its_worker_costs_itself_alone(tmp_path, cluster, producer, harm):
    produce(producer, [str(n) for n in range(300)])
    with daemon(tmp_path, cluster, options={harm: "77"}, stuck_timeout_s=0.4) as stream:
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [299], lambda: stream.log)
        [dead] = read_all(cluster, DEAD, 1)
        assert stream.counted("dmpd_stream_resets_total") == 0, "the ring stays"
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    headers = dict(dead.headers())
    assert (dead.value(), headers["dmpd-reason"], headers["dmpd-by"]) == (b"77", b"poison", b"stream")
    assert handled(tmp_path, 0) == [n for n in range(300) if n != 77]
    assert committed(cluster, 0) == 300


def test_a_sink_that_stalls_is_no_stuck_worker(tmp_path, cluster, producer):
    """An outage with the timers shortened: ten stuck timeouts long, each attempt said."""
    (tmp_path / "block").touch()
    with daemon(tmp_path, cluster, stuck_timeout_s=0.3, sink_silence_timeout_s=5.0) as stream:
        produce(producer, [str(n) for n in range(100)])
        first = wait_for(lambda: stream.worker_pid(0), lambda: stream.log)
        wait_for(lambda: stream.status["partitions"]["0"]["oldest_age_s"] > 3, lambda: stream.log)
        assert stream.worker_pid(0) == first, stream.log
        (tmp_path / "block").unlink()
        wait_for(lambda: len(handled(tmp_path, 0)) >= 100, lambda: stream.log)
        assert stream.status["partitions"]["0"]["restarts"] == 0
        stream.terminate()
        assert stream.exit_code() == 0, stream.log


def test_a_corrupted_ring_is_fetched_anew(tmp_path, cluster, producer):
    produce(producer, [str(n) for n in range(2000)])
    with daemon(tmp_path, cluster, options={"corrupt_once": "1500"}, batch_records_max=100) as stream:
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [1999], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
        assert "ring_corrupted" in stream.log
    assert list(dict.fromkeys(handled(tmp_path, 0))) == list(range(2000))
    assert committed(cluster, 0) == 2000


def test_a_ring_that_breaks_under_a_worker_that_lives_is_fetched_anew(tmp_path, cluster, producer):
    """It is the worker that meets the next frame, and says so."""
    (tmp_path / "block").touch()
    options = {"spoil_once": "1500"}
    with daemon(tmp_path, cluster, options=options, batch_records_max=100, consume_records_max=100) as stream:
        produce(producer, [str(n) for n in range(2000)])
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("open_records") == 2000, lambda: stream.log)
        (tmp_path / "block").unlink()
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [1999], lambda: stream.log)
        assert stream.counted("dmpd_stream_resets_total") == 1
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
        assert "ring_corrupted" in stream.log
    assert list(dict.fromkeys(handled(tmp_path, 0))) == list(range(2000))
    assert committed(cluster, 0) == 2000


def test_a_handler_that_raises_is_tried_again_and_holds_the_commit(tmp_path, cluster, producer):
    (tmp_path / "raise").touch()
    with daemon(tmp_path, cluster, options={"raise_at": "5"}) as stream:
        produce(producer, [str(n) for n in range(10)])
        # One death as a batch, at least; alone it is judged after the third.
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("restarts", 0) >= 3, lambda: stream.log)
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [9], lambda: stream.log)
        [dead] = read_all(cluster, DEAD, 1)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
        assert "RuntimeError: as asked" in stream.log
        assert stream.status["partitions"]["0"]["restarts"] <= 3 + 3
    headers = dict(dead.headers())
    assert (dead.value(), headers["dmpd-reason"]) == (b"5", b"poison")
    assert headers["dmpd-detail"] == b"exit status 70: handler failed: RuntimeError: as asked"
    assert handled(tmp_path, 0) == [n for n in range(10) if n != 5]
    assert committed(cluster, 0) == 10


def test_an_invalid_record_costs_itself_and_is_dead_lettered_as_it_was(tmp_path, cluster, producer):
    produce(producer, ["a"])
    produce(producer, ["b"], headers=[("mqtt-received-at", b"now"), ("dmpd-reason", b"an older one")])
    produce(producer, ["c"])
    with daemon(tmp_path, cluster, options={"invalid": ["b"]}) as stream:
        [dead] = read_all(cluster, DEAD, 1)
        wait_for(lambda: handled(tmp_path, 0) == [0, 1, 2], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    headers = dict(dead.headers())
    assert len(dead.headers()) == len(headers)
    assert (dead.key(), dead.value(), headers.pop("mqtt-received-at")) == (b"key", b"b", b"now")
    assert headers.pop("dmpd-at").endswith(b"Z")
    assert headers == {
        "dmpd-reason": b"bad",
        "dmpd-detail": b"it says so",
        "dmpd-topic": b"t",
        "dmpd-partition": b"0",
        "dmpd-offset": b"1",
        "dmpd-by": b"handler",
    }
    assert committed(cluster, 0) == 3


def test_an_oversized_record_never_reaches_the_handler(tmp_path, cluster, producer):
    produce(producer, ["small", "x" * 5000, "small too", "y" * 5000])
    with daemon(tmp_path, cluster, max_record_bytes=4096) as stream:
        dead = read_all(cluster, DEAD, 2)
        wait_for(lambda: handled(tmp_path, 0) == [0, 2], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert [len(one.value()) for one in dead] == [5000, 5000]
    assert {dict(one.headers())["dmpd-reason"] for one in dead} == {b"oversized"}
    assert committed(cluster, 0) == 4


def test_emitted_records_are_delivered_before_the_commit(tmp_path, cluster, producer):
    produce(producer, ["a", "b"])
    with daemon(tmp_path, cluster, options={"emit": DEAD}) as stream:
        assert [one.value() for one in read_all(cluster, DEAD, 2)] == [b"a", b"b"]
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert committed(cluster, 0) == 2


def test_a_full_ring_pauses_its_partition_alone_and_loses_nothing(tmp_path, cluster, producer):
    (tmp_path / "block0").touch()
    with daemon(tmp_path, cluster, ring_bytes=1 << 18, max_record_bytes=1 << 14) as stream:
        values = [str(n).zfill(400) for n in range(5000)]
        produce(producer, values)
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("paused"), lambda: stream.log)
        produce(producer, ["other"] * 100, partition=1)
        wait_for(lambda: len(handled(tmp_path, 1)) == 100, lambda: stream.log)
        used = stream.status["partitions"]["0"]["ring_used_bytes"]
        assert used <= 1 << 18
        (tmp_path / "block0").unlink()
        wait_for(lambda: len(handled(tmp_path, 0)) >= 5000, lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert handled(tmp_path, 0) == list(range(5000))
    assert committed(cluster, 0) == 5000


def test_all_paused_partitions_flow_again(tmp_path, cluster, producer):
    (tmp_path / "block").touch()
    with daemon(tmp_path, cluster, ring_bytes=1 << 18, max_record_bytes=1 << 14) as stream:
        for partition in (0, 1):
            produce(producer, [str(n).zfill(400) for n in range(3000)], partition=partition)
        wait_for(
            lambda: [p["paused"] for p in stream.status["partitions"].values()] == [True, True], lambda: stream.log
        )
        (tmp_path / "block").unlink()
        for partition in (0, 1):
            wait_for(lambda: len(handled(tmp_path, partition)) >= 3000, lambda: stream.log)  # noqa: B023
            assert handled(tmp_path, partition) == list(range(3000))


def test_a_second_instance_takes_its_share_and_gives_it_back(tmp_path, cluster, producer):
    rarely = {"commit_interval_s": 60.0, "commit_records": 1_000_000}  # so that only revoke and drain commit
    with daemon(tmp_path, cluster, **rarely) as one:
        wait_for(lambda: len(one.status["partitions"]) == 2, lambda: one.log)
        for count in (100, 200):  # the first is committed at once, the second only by the revoke
            produce(producer, [str(n) for n in range(100)])
            produce(producer, [str(n) for n in range(100)], partition=1)
            for partition in (0, 1):
                wait_for(lambda: len(handled(tmp_path, partition)) == count, lambda: one.log)  # noqa: B023
            wait_for(lambda: one.status["partitions"]["1"]["next_offset"] == count, lambda: one.log)  # noqa: B023
        with daemon(tmp_path, cluster, name="two", **rarely) as two:
            wait_for(lambda: len(two.status["partitions"]) == 1, lambda: one.log + two.log)
            wait_for(lambda: len(one.status["partitions"]) == 1, lambda: one.log + two.log)
            produce(producer, [str(n) for n in range(200)])
            produce(producer, [str(n) for n in range(200)], partition=1)
            for partition in (0, 1):
                wait_for(lambda: len(set(handled(tmp_path, partition))) == 400, lambda: one.log + two.log)  # noqa: B023
            two.terminate()
            assert two.exit_code() == 0, two.log
        wait_for(lambda: len(one.status["partitions"]) == 2, lambda: one.log)
        produce(producer, ["x"])
        produce(producer, ["x"], partition=1)
        for partition in (0, 1):
            wait_for(lambda: handled(tmp_path, partition)[-1] == 400, lambda: one.log)  # noqa: B023
        one.terminate()
        assert one.exit_code() == 0, one.log
    for partition in (0, 1):
        assert committed(cluster, partition) == 401
        if "commit failed" in one.log + two.log:  # the mock refuses commits in some turns of a rebalance
            assert sorted(set(handled(tmp_path, partition))) == list(range(401))
        else:
            assert handled(tmp_path, partition) == list(range(401))  # handed over with the commit: nothing twice


def test_a_partition_that_left_paused_flows_when_it_comes_back(tmp_path, cluster, producer):
    """The client keeps the pause flag beyond a revocation."""
    (tmp_path / "block").touch()
    with daemon(tmp_path, cluster, ring_bytes=1 << 18, max_record_bytes=1 << 14) as one:
        for partition in (0, 1):
            produce(producer, [str(n).zfill(400) for n in range(1000)], partition=partition)
        wait_for(lambda: [p["paused"] for p in one.status["partitions"].values()] == [True, True], lambda: one.log)
        with daemon(tmp_path, cluster, name="two", ring_bytes=1 << 18, max_record_bytes=1 << 14) as two:
            wait_for(lambda: len(one.status["partitions"]) == 1 == len(two.status["partitions"]), lambda: one.log)
            two.process.kill()
            wait_for(lambda: len(one.status["partitions"]) == 2, lambda: one.log)
        (tmp_path / "block").unlink()
        for partition in (0, 1):
            wait_for(lambda: handled(tmp_path, partition) == list(range(1000)), lambda: one.log)  # noqa: B023


def test_term_drains_what_was_fetched(tmp_path, cluster, producer):
    (tmp_path / "block").touch()
    with daemon(tmp_path, cluster) as stream:
        produce(producer, [str(n) for n in range(500)])
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("ring_used_bytes", 0) > 0, lambda: stream.log)
        stream.terminate()
        wait_for(lambda: stream.status["state"] == "draining", lambda: stream.log)
        (tmp_path / "block").unlink()
        assert stream.exit_code() == 0, stream.log
    seen = handled(tmp_path, 0)
    assert seen == list(range(len(seen)))
    assert committed(cluster, 0) == len(seen) > 0


def test_a_drain_fetches_no_more(tmp_path, cluster, producer):
    (tmp_path / "block").touch()
    with daemon(tmp_path, cluster) as stream:
        produce(producer, [str(n) for n in range(500)])
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("open_records") == 500, lambda: stream.log)
        stream.terminate()
        wait_for(lambda: stream.status["state"] == "draining", lambda: stream.log)
        produce(producer, [str(n) for n in range(500)])
        for _ in range(4):  # pictures, half a second apart
            before = stream.status_path.stat().st_mtime_ns
            wait_for(lambda: stream.status_path.stat().st_mtime_ns != before, lambda: stream.log)  # noqa: B023
        (tmp_path / "block").unlink()
        assert stream.exit_code() == 0, stream.log
    assert handled(tmp_path, 0) == list(range(500))
    assert committed(cluster, 0) == 500


def test_a_second_term_ends_at_once_and_says_what_goes_back(tmp_path, cluster, producer):
    (tmp_path / "block").touch()
    with daemon(tmp_path, cluster) as stream:
        produce(producer, [str(n) for n in range(500)])
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("ring_used_bytes", 0) > 0, lambda: stream.log)
        worker = wait_for(lambda: stream.worker_pid(0), lambda: stream.log)
        stream.terminate()
        wait_for(lambda: stream.status["state"] == "draining", lambda: stream.log)
        stream.terminate()
        assert stream.exit_code(15) == 70
        assert "back to Kafka: 0: 500 records from offset 0" in stream.log
        wait_for(lambda: is_gone(worker), "worker dies with its parent", timeout_s=20)
    assert handled(tmp_path, 0) == []


def test_the_drain_ends_at_its_deadline(tmp_path, cluster, producer):
    (tmp_path / "block").touch()
    with daemon(tmp_path, cluster, drain_timeout_s=1.0) as stream:
        produce(producer, ["a"])
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("ring_used_bytes", 0) > 0, lambda: stream.log)
        stream.terminate()
        assert stream.exit_code(20) == 70
        assert "the drain did not end in time; back to Kafka: 0: 1 records from offset 0" in stream.log


def test_a_second_term_is_heard_while_the_handler_is_imported(tmp_path, cluster):
    with daemon(tmp_path, cluster, handler="tests.support.stream_slow_import:make") as stream:
        wait_for(lambda: stream.is_answering, lambda: stream.log)
        wait_for(lambda: stream.has_ended or stream.terminate(), "it lives on", timeout_s=15, poll_s=0.2)
        assert stream.exit_code() == 70, stream.log
        assert "a second time" in stream.log


@pytest.mark.parametrize(("timeout_s", "terms"), [(1.0, 1), (600.0, 2)], ids=["deadline", "second TERM"])
def test_it_ends_though_nobody_reads_what_it_says(tmp_path, cluster, producer, timeout_s, terms):
    """Its standard error is a pipe, it is full, and the reader stands still: no line can be written any more."""
    (tmp_path / "block").touch()
    read_fd, write_fd = os.pipe()
    try:
        with daemon(tmp_path, cluster, drain_timeout_s=timeout_s, stderr=write_fd) as stream:
            produce(producer, ["x"])
            wait_for(lambda: stream.status["partitions"].get("0", {}).get("open_records") == 1, "it is not fed")
            fill(write_fd)
            stream.terminate()
            wait_for(lambda: stream.has_ended or (terms > 1 and stream.terminate()), "it lives on", timeout_s=15)
            assert stream.exit_code() == 70
    finally:
        os.close(read_fd)
        os.close(write_fd)


def fill(write_fd):
    """Until not one byte more fits."""
    os.set_blocking(write_fd, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_fd, b"x" * size)
    os.set_blocking(write_fd, True)


def test_workers_and_fork_server_die_with_a_killed_parent(tmp_path, cluster, producer):
    (tmp_path / "hang").touch()  # a hung worker reads no end of its channel
    with daemon(tmp_path, cluster) as stream:
        produce(producer, ["a"])
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("ring_used_bytes", 0) > 0, lambda: stream.log)
        worker = wait_for(lambda: stream.worker_pid(0), lambda: stream.log)
        server = parent_of(worker)
        assert parent_of(server) == stream.process.pid
        stream.process.kill()
        wait_for(lambda: is_gone(worker) and is_gone(server), "both die", timeout_s=20)


def test_a_killed_fork_server_is_replaced_with_all_its_workers(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster) as stream:
        produce(producer, ["a"])
        wait_for(lambda: handled(tmp_path, 0) == [0], lambda: stream.log)
        old = [wait_for(lambda n=n: stream.worker_pid(n), lambda: stream.log) for n in (0, 1)]
        os.kill(parent_of(old[0]), signal.SIGKILL)
        wait_for(lambda: all(stream.worker_pid(n) not in (None, old[n]) for n in (0, 1)), lambda: stream.log)
        produce(producer, ["b"])
        wait_for(lambda: handled(tmp_path, 0) == [0, 1], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
        assert all(is_gone(pid) for pid in old)


def test_a_worker_ignores_the_groups_signals_and_holds_no_foreign_descriptor(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster) as stream:
        worker = wait_for(lambda: stream.worker_pid(0), lambda: stream.log)
        for pid in (worker, parent_of(worker)):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(pid, number)
        produce(producer, ["a"])
        wait_for(lambda: handled(tmp_path, 0) == [0], lambda: stream.log)
        assert stream.worker_pid(0) == worker
        targets = sorted(str(fd.readlink()).split(":")[0] for fd in Path(f"/proc/{worker}/fd").iterdir())
        named = [t for t in targets if t not in ("/dev/null", str(stream.log_path), str(tmp_path / "0.journal"))]
        # Standard output is the test's own; the ring twice (a mapping keeps a descriptor), one end of the channel.
        assert [t for t in named if not t.startswith(("pipe", "/dev/pts", "/tmp", "/root"))] == [
            "/memfd",
            "/memfd",
            "socket",
        ]
        assert "librdkafka" not in Path(f"/proc/{worker}/maps").read_text()
        assert os.sched_getscheduler(worker) == os.SCHED_BATCH
        assert os.sched_getscheduler(parent_of(parent_of(worker))) == os.SCHED_OTHER  # it is not to wait for anybody


def test_retention_that_overtakes_is_survived_and_told(tmp_path, cluster, producer):
    produce(producer, [str(n) for n in range(10)])
    with daemon(tmp_path, cluster) as stream:
        wait_for(lambda: len(handled(tmp_path, 0)) == 10, lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0
    produce(producer, [str(n) for n in range(10, 30)])
    cluster.delete_records(TOPIC, 0, 20)
    with daemon(tmp_path, cluster, name="again") as stream:
        wait_for(lambda: handled(tmp_path, 0)[-1] == 29, lambda: stream.log)
        assert "Kafka no longer has 10 offsets before 20" in stream.log
    assert handled(tmp_path, 0) == [*range(10), *range(20, 30)]


def test_a_refused_commit_is_sent_again(tmp_path, cluster, producer):
    with daemon(tmp_path, cluster, commit_interval_s=0.2) as stream:
        wait_for(lambda: stream.status["state"] == "ready", lambda: stream.log)
        cluster.errors(8, [14, 14, 15, 16, 22])
        produce(producer, ["a", "b"])
        wait_for(lambda: stream.status["partitions"].get("0", {}).get("committed") == 2, lambda: stream.log)
        assert "commit of a lost generation dropped" in stream.log
    assert committed(cluster, 0) == 2


def test_a_handler_that_cannot_be_imported_ends_the_program(tmp_path, cluster):
    with daemon(tmp_path, cluster, handler="tests.support.stream_handlers:absent") as stream:
        assert stream.exit_code() != 0
        assert "HandlerImportError: cannot import tests.support.stream_handlers:absent" in stream.log


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
