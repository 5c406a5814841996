"""dmpctl stream, dead-letters and drain against a running stream on the mock cluster."""

import json
import threading

import pytest

from dmpd.cli import dmpctl
from tests.support.standstill import DEAD, TOPIC, Bench, Dmpctl, picture
from tests.support.stream_daemon import wait_for
from tests.support.stream_handlers import handled


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_an_operators_way_through_a_halt(tmp_path, bench, capsys):
    with bench.daemon() as stream:
        ctl = Dmpctl(bench.config(stream), capsys)
        count = bench.halt(stream)
        assert ctl("stream", "status") == 1
        assert "halted" in ctl.out
        assert "501 of its last 1000 records are invalid, from 12 sources" in ctl.out
        assert "dmpctl stream resume or skip" in ctl.out
        assert ctl("stream", "status", "--json", "--partition", "1", "--at", stream.bind) == 0
        assert list(json.loads(ctl.out)["partitions"]) == ["1"]

        assert ctl("dead-letters", "list", "--limit", "3") == 0
        assert [line.split()[1] for line in ctl.out.splitlines()[1:]] == ["500", "499", "498"]
        assert ctl("dead-letters", "list", "--reason", "skipped") == 1
        assert ctl("dead-letters", "show", "0", "500") == 0
        assert "reason    bad: it says so" in ctl.out
        assert "from      t partition 0 offset 500" in ctl.out

        assert ctl("stream", "skip", "--partition", "1") == 1
        assert "only a halted partition is skipped" in ctl.out
        assert ctl("stream", "resume", "--partition", "1") == 0
        assert ctl("stream", "skip", "--partition", "7") == 1
        assert "partition 7 is not owned here" in ctl.err
        assert ctl("stream", "skip", "--partition", "0") == 0
        assert f"skipping {count - picture(stream)['next_offset']} records" in ctl.out
        wait_for(lambda: bench.committed(0) == count, lambda: stream.log)
        wait_for(lambda: ctl("stream", "status") == 0, lambda: ctl.out)

        assert ctl("dead-letters", "replay", "--reason", "skipped", "--dry-run") == 0
        assert ctl.out.startswith("309 would go back")
        assert handled(tmp_path, 0)[-1] < count
        assert ctl("dead-letters", "replay", "--reason", "skipped", "--rate", "0") == 0
        assert ctl.out.startswith("309 went back")
        wait_for(lambda: bench.committed(0) == count + 309, lambda: stream.log)
        ended = []
        thread = threading.Thread(target=lambda: ended.append(stream.exit_code()))
        thread.start()
        assert ctl("drain", "cloud-registry") == 0
        thread.join()
        assert ended == [0], stream.log
    records = bench.read_all(TOPIC)[count:]
    assert [one.value() for one in records] == [b"bad"] * 299 + [b"good"] * 10
    assert {tuple(one.headers()) for one in records} == {(("dmpd-replayed", b"1"),)}
    failed_again = [
        dict(one.headers()) for one in bench.read_all(DEAD) if int(dict(one.headers())["dmpd-offset"]) >= count
    ]
    assert {(one["dmpd-replayed"], one["dmpd-reason"]) for one in failed_again} == {(b"1", b"bad")}
    assert len(failed_again) == 299


def test_a_drain_that_takes_too_long_is_told_with_what_is_left(tmp_path, bench, capsys):
    with bench.daemon() as stream:
        ctl = Dmpctl(bench.config(stream), capsys)
        (tmp_path / "block0").touch()
        bench.produce(["good"] * 20)
        wait_for(lambda: picture(stream).get("open_records") == 20, lambda: stream.log)
        assert ctl("drain", "cloud-registry", "--timeout", "1.5") == 1
        assert "draining: 20 records left in 1 partitions (0)" in ctl.out
        assert "has not ended within 1.5 s (20 records left in 1 partitions (0))" in ctl.err
        assert ctl("stream", "resume", "--all") == 1
        assert "is draining" in ctl.err
        (tmp_path / "block0").unlink()
        assert stream.exit_code() == 0
        assert ctl("drain", "cloud-registry") == 69
        assert "no daemon answers at unix:" in ctl.err
    assert bench.committed(0) == 20


def test_what_cannot_go_back_is_refused_with_a_sentence(bench, capsys):
    ours = [("dmpd-reason", b"bad"), ("dmpd-topic", b"t"), ("dmpd-partition", b"1"), ("dmpd-offset", b"7")]
    producer = bench.producer
    producer.produce(DEAD, b"", b"s0/1", headers=[*ours, ("dmpd-truncated", b"2000000")])
    producer.produce(DEAD, b"x", b"s0/2", headers=[("dmpd-reason", b"bad_key"), ("dmpd-by", b"bridge")])
    producer.produce(DEAD, b"", b"", headers=[*ours, ("dmpd-null", b"key,value"), ("mine", b"yes")])
    producer.produce(DEAD, b"\x1b[2J\xff", b"s0/\x1b]0;x", headers=ours)
    assert producer.flush(30) == 0
    with bench.daemon() as stream:
        ctl = Dmpctl(bench.config(stream), capsys)
        assert ctl("dead-letters", "replay") == 64
        assert "say which" in ctl.err
        assert ctl("dead-letters", "replay", "--all") == 1
        assert "0/0: its value was too large to be kept" in ctl.out
        assert "0/1: it was refused by bridge before it was a record of a topic" in ctl.out
        assert "2 went back, 2 cannot" in ctl.out
        assert ctl("dead-letters", "replay", "--letter", "0/9") == 1
        assert ctl("dead-letters", "show", "0", "9") == 1
        for words in (("list",), ("show", "0", "3")):
            assert ctl("dead-letters", *words) == 0
            assert "\x1b" not in ctl.out
        assert ctl("dead-letters", "show", "0", "0") == 0
        assert "truncated" in ctl.out
        [null, _] = bench.read_all(TOPIC, 1)
        assert (null.key(), null.value(), null.headers()) == (None, None, [("mine", b"yes"), ("dmpd-replayed", b"1")])


def test_a_letter_whose_place_cannot_be_costs_itself_alone(bench, capsys):
    for place, value in ((b"99999999999", b"lost"), (b"0", b"good")):
        headers = [("dmpd-reason", b"bad"), ("dmpd-topic", b"t"), ("dmpd-partition", place), ("dmpd-offset", b"7")]
        bench.producer.produce(DEAD, value, b"s0/1", headers=headers)
    assert bench.producer.flush(30) == 0
    with bench.daemon() as stream:
        ctl = Dmpctl(bench.config(stream), capsys)
        sentence = "0/0: its headers name no place in a topic: dmpd-partition '99999999999'"
        assert ctl("dead-letters", "list") == 1
        assert sentence in ctl.err
        assert "t/?/7" in ctl.out
        assert "t/0/7" in ctl.out
        assert ctl("dead-letters", "list", "--json", "--partition", "0") == 0
        assert ctl("dead-letters", "show", "0", "0") == 1
        assert sentence in ctl.err
        assert "t partition ? offset 7" in ctl.out
        assert ctl("dead-letters", "replay", "--all", "--dry-run") == 1
        assert "1 would go back, 1 cannot" in ctl.out
        assert ctl("dead-letters", "replay", "--reason", "bad") == 1
        assert sentence in ctl.out
        assert "1 went back, 1 cannot" in ctl.out
    assert [one.value() for one in bench.read_all(TOPIC)] == [b"good"]


def test_what_the_sink_says_is_shown(tmp_path, bench, capsys):
    with bench.daemon() as stream:
        ctl = Dmpctl(bench.config(stream), capsys)
        (tmp_path / "block0").touch()
        bench.produce(["good"])
        wait_for(lambda: picture(stream).get("state") == "waiting", lambda: stream.log)
        assert ctl("stream", "status") == 1
        assert "partition 0: the sink takes nothing: the sink is blocked" in ctl.out
        assert ctl("stream", "resume", "--partition", "0") == 0
        assert "waits for its sink and goes on by itself: the sink is blocked" in ctl.out
        (tmp_path / "needs-person").touch()
        wait_for(lambda: picture(stream).get("state") == "halted", lambda: stream.log)
        wait_for(lambda: "the sink takes nothing" in stream.log, lambda: stream.log)  # the reason of degraded
        assert ctl("stream", "skip", "--partition", "0") == 1
        (tmp_path / "block0").unlink()
        wait_for(lambda: picture(stream).get("state") == "running", lambda: stream.log)
        wait_for(lambda: ctl("stream", "status") == 0, lambda: stream.log)


def test_what_cannot_be_done_is_a_sentence_and_its_code(bench, capsys):
    with bench.daemon() as stream:
        ctl = Dmpctl(bench.config(stream), capsys)
        wait_for(lambda: len(stream.status["partitions"]) == 2, lambda: stream.log)
        assert ctl("stream", "skip", "--all") == 1
        assert "partition 1: is running: only a halted partition is skipped" in ctl.out
        assert ctl("stream", "resume", "--all") == 0
        assert ctl("dead-letters", "replay", "--letter", "0/99999999") == 1
        assert (ctl.out, ctl.err) == ("", "no dead letter at 0/99999999\n")
        assert ctl("dead-letters", "replay", "--letter", "0/0", "--reason", "bad") == 64
        assert "--letter is one letter" in ctl.err
        assert ctl("dead-letters", "list", "--bootstrap", bench.cluster.bootstrap) == 64
        assert "go with --topic" in ctl.err
    for words in (["stream", "skip", "--partition", "9" * 23], ["stream", "status", "--at", "foo"]):
        with pytest.raises(SystemExit) as ended:
            dmpctl.main(words)
        assert ended.value.code == 64
        assert ": expected " in capsys.readouterr().err


def test_any_streams_letters_are_read_and_any_stream_is_drained(bench, capsys, monkeypatch):
    """As of a ``dmpd stream-run --health``: there is no configuration of the cloud at all."""
    monkeypatch.setenv("DMPD_CONFIG", str(bench.folder / "absent.yaml"))
    where = ["--topic", TOPIC, "--bootstrap", bench.cluster.bootstrap]
    with bench.daemon() as stream:
        bench.produce(["bad"])
        wait_for(lambda: picture(stream).get("dead_letters") == 1, lambda: stream.log)
        assert dmpctl.main(["dead-letters", "list", "--json", *where]) == 0
        [letter] = json.loads(capsys.readouterr().out)
        assert (letter["reason"], letter["origin_offset"]) == ("bad", 0)
        assert dmpctl.main(["dead-letters", "replay", "--all", *where]) == 0
        wait_for(lambda: bench.committed(0) == 2, lambda: stream.log)
        assert dmpctl.main(["dead-letters", "show", "0", "1", *where, "--dead-letter-topic", DEAD]) == 0
        assert "replayed  1 times before" in capsys.readouterr().out
        assert dmpctl.main(["dead-letters", "list", *where, "--dead-letter-topic", TOPIC]) == 78
        ended = []
        thread = threading.Thread(target=lambda: ended.append(stream.exit_code()))
        thread.start()
        assert dmpctl.main(["drain", "--at", stream.bind]) == 0
        thread.join()
        assert ended == [0], stream.log
        assert "has ended after" in capsys.readouterr().out
