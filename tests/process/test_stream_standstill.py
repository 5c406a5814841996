"""Poison in masses, and an operator's verbs, with real workers on the mock cluster."""

import os
import signal

import pytest

from tests.support.standstill import Bench, picture
from tests.support.stream_daemon import wait_for
from tests.support.stream_handlers import handled


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_flood_of_poison_from_one_source_is_limited_and_the_others_go_on(tmp_path, bench):
    with bench.daemon(dead_letters_per_source_per_minute=50) as stream:
        bench.produce(["bad"] * 3000, sources=("flood",))
        bench.produce(["bad", "good"] * 20, sources=("calm", "calm"))
        bench.produce(["good"] * 100, partition=1)
        wait_for(lambda: bench.committed(0) == 3040, lambda: stream.log)
        assert picture(stream)["state"] == "running"
        assert len(handled(tmp_path, 1)) == 100
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    sources = [key.partition("/")[0] for _, _, key in bench.dead_letters()]
    assert (sources.count("flood"), sources.count("calm")) == (50 + 2, 20)  # the limit, and two samples of 2950


def test_poison_from_many_sources_halts_its_partition_alone(tmp_path, bench):
    with bench.daemon() as stream:
        count = bench.halt(stream)
        assert "partition 0 is halted at offset" in stream.log
        assert "from 12 sources" in stream.log
        wait_for(lambda: "partition 0 is halted" in stream.status["reason"], lambda: stream.status)
        assert stream.status["state"] == "degraded"
        assert picture(stream)["worker_pid"] is None
        bench.produce(["good"] * 100, partition=1)
        wait_for(lambda: len(handled(tmp_path, 1)) == 100, lambda: stream.log)
        first = wait_for(lambda: stream.worker_pid(1), lambda: stream.log)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: stream.worker_pid(1) not in (None, first), lambda: stream.log)
        bench.produce(["good"] * 100)
        assert picture(stream)["state"] == "halted"
        frontier = picture(stream)["next_offset"]
        assert 401 <= frontier <= 501
        assert len(bench.dead_letters()) == 501
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
        assert f"back to Kafka: 0: {count - frontier} records from offset {frontier}" in stream.log
    assert bench.committed(0) == frontier
    assert set(handled(tmp_path, 0)) >= set(range(frontier))


def test_resume_clears_the_window_and_goes_on(tmp_path, bench):
    with bench.daemon() as stream:
        count = bench.halt(stream)
        code, answer = stream.ask("/stream/resume", partition=0)
        assert (code, answer["partitions"]["0"]) == (200, {"changed": True, "said": "goes on (was halted)"})
        wait_for(lambda: bench.committed(0) == count, lambda: stream.log)
        wait_for(lambda: stream.status["state"] == "ready", lambda: stream.status)
        bench.produce(["good"])
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [count], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    letters = bench.dead_letters()
    assert len(letters) == len(set(letters)) == 800  # nothing twice, though batches were
    assert list(dict.fromkeys(handled(tmp_path, 0))) == list(range(count + 1))


def test_skip_makes_dead_letters_of_the_ring_and_goes_on(tmp_path, bench):
    with bench.daemon() as stream:
        count = bench.halt(stream)
        code, answer = stream.ask("/stream/skip", all=True)
        assert code == 200
        assert answer["partitions"]["1"] == {"changed": False, "said": "is running: only a halted partition is skipped"}
        assert answer["partitions"]["0"]["changed"]
        wait_for(lambda: bench.committed(0) == count, lambda: stream.log)
        bench.produce(["good"])
        wait_for(lambda: handled(tmp_path, 0)[-1:] == [count], lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    letters = bench.dead_letters()
    judged = [offset for reason, offset, _ in letters if reason == "bad"]
    skipped = [offset for reason, offset, _ in letters if reason == "skipped"]
    assert (judged, skipped) == (list(range(501)), list(range(501, count)))
    assert handled(tmp_path, 0)[-1] == count


def test_a_paused_partition_is_not_fetched_until_resume(tmp_path, bench):
    with bench.daemon() as stream:
        wait_for(lambda: picture(stream).get("worker_pid"), lambda: stream.log)
        assert stream.ask("/stream/pause", partition=0)[1]["partitions"]["0"]["changed"]
        assert not stream.ask("/stream/pause", partition=0)[1]["partitions"]["0"]["changed"]
        wait_for(lambda: picture(stream)["paused"], lambda: stream.log)
        assert picture(stream)["state"] == "paused"
        bench.produce(["good"] * 50)
        bench.produce(["good"] * 50, partition=1)
        wait_for(lambda: len(handled(tmp_path, 1)) == 50, lambda: stream.log)
        wait_for(lambda: picture(stream)["lag"] == 50, lambda: stream.log)
        assert handled(tmp_path, 0) == []
        assert stream.status["state"] == "ready"
        assert stream.ask("/stream/resume", all=True)[0] == 200
        wait_for(lambda: handled(tmp_path, 0) == list(range(50)), lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log


def test_post_drain_is_what_term_is(tmp_path, bench):
    bench.produce(["good"] * 300)
    with bench.daemon() as stream:
        wait_for(lambda: handled(tmp_path, 0), lambda: stream.log)
        assert stream.ask("/drain") == (202, {"said": "draining"})
        assert stream.exit_code() == 0, stream.log
    assert bench.committed(0) == len(handled(tmp_path, 0))


def test_orders_that_cannot_be_carried_out_are_refused_with_a_sentence(bench):
    with bench.daemon() as stream:
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
        assert (code, answer["error"]) == (
            404,
            "there are: POST /drain /reload /stream/pause /stream/resume /stream/skip",
        )
