"""The downlink between a Kafka in memory and a connection that the test watches: to its end, whatever comes between."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from dmpd.bridge.downlink import GROUP, Downlink
from dmpd.bridge.feed import Feed
from dmpd.bridge.settings import BridgeSettings
from dmpd.model.codec import encode
from dmpd.model.messages import Request, Response
from dmpd.model.requests import EXPIRY_HEADER, request_record
from dmpd.model.topics import partition_of, rsp_topic
from dmpd.runtime.kafka import KafkaUnreachableError
from dmpd.runtime.kafka_memory import MemoryFollower, MemoryKafka, MemoryProducer, StoredRecord
from dmpd.runtime.mqtt import MqttUnreachableError
from dmpd.runtime.settings import TopicSettings
from tests.support.aio import async_test

N = 2
SESSION = "0f1e2345-6789-4abc-8def-0123456789ab"
TOPICS = TopicSettings()


def kafka() -> MemoryKafka:
    made = MemoryKafka(record_bytes_max=400_000)
    for name in (TOPICS.cmd, TOPICS.rsp, TOPICS.info_dead):
        made.create_topic(name, partitions=N)
    return made


class Client:
    """A connection: keeps what is published; ``refusing`` = it has ended."""

    server_receive_maximum = 20

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any], int | None]] = []
        self.refusing = False

    def publish(self, topic: str, payload: bytes, *, qos: int, expiry_s: int | None = None) -> int:
        if self.refusing:
            raise MqttUnreachableError("closed")
        assert qos == 1
        self.published.append((topic, json.loads(payload), expiry_s))
        return len(self.published)

    def ids(self) -> list[str]:
        return [body["id"] for _, body, _ in self.published]


class Bench:
    """One bridge's downlink after the other over the same Kafka."""

    def __init__(self, **settings: Any) -> None:
        self.kafka = kafka()
        self.client = Client()
        self.settings = BridgeSettings(**settings)
        self.downlink: Downlink | None = None
        self.producers: list[MemoryProducer] = []
        self.skew_s = 0.0
        self.puback_code = 0x10

    def producer(self) -> MemoryProducer:
        self.producers.append(MemoryProducer(self.kafka))
        return self.producers[-1]

    @asynccontextmanager
    async def running(self, *, attached: bool = True, fatal: str | None = None) -> AsyncIterator[Downlink]:
        """``fatal``: of the first producer."""
        self.downlink = one = Downlink(
            self.settings,
            topics=TOPICS,
            partitions={TOPICS.rsp: N},
            make_feed=lambda sink: Feed(
                sink,
                open_requests=self.open_requests,
                open_responses=lambda since_ms: MemoryFollower(self.kafka, TOPICS.rsp, group="", since_ms=since_ms),
            ),
            make_producer=self.producer,
        )
        one.start()
        self.producers[-1].fatal = fatal
        if attached:
            one.attached(self.client)
        try:
            yield one
        finally:
            await one.stop()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline_s, f"not in 60 s: {what}"
            assert self.downlink is not None
            self.downlink.tick(time.monotonic() + self.skew_s)
            for mid in range(1, len(self.client.published) + 1):
                self.downlink.puback(mid, self.puback_code)
            await asyncio.sleep(0.005)

    def open_requests(self) -> MemoryFollower:
        return MemoryFollower(self.kafka, TOPICS.cmd, group=GROUP)

    def ask(
        self, name: str, *, rae: str = "r1", requester: str = "op-a", lifetime_s: int = 60, age_s: float = 0
    ) -> None:
        request = Request(v=1, rae=rae, session="rae", at=datetime.now(UTC), id=name, verb="ping")
        record = request_record(request, requester, lifetime_s=lifetime_s)
        self.put(record.key, record.value, record.headers, age_s=age_s, number=partition_of(rae, N))

    def put(
        self, key: bytes | None, value: bytes | None, headers: Any = (), *, age_s: float = 0, number: int = 0
    ) -> None:
        at_ms = int((time.time() - age_s) * 1000)
        self.kafka.topics[TOPICS.cmd][number].append(StoredRecord(key, value, tuple(headers), at_ms))

    def answer(
        self,
        name: str,
        *,
        rae: str = "r1",
        requester: str = "op-a",
        outcome: Any = "accepted",
        age_s: float = 0,
        behind: list[StoredRecord] | None = None,
    ) -> None:
        """``behind``: records that come with it, before it."""
        response = Response(v=1, rae=rae, session="rae", at=datetime.now(UTC), epoch=1, id=name, outcome=outcome)
        key = rsp_topic(rae, "rae", requester).encode()
        record = StoredRecord(key, encode(response), (), int((time.time() - age_s) * 1000))
        self.kafka.topics[TOPICS.rsp][partition_of(rae, N)].extend([*(behind or []), record])

    def said(self) -> list[tuple[str, str]]:
        records = [json.loads(one.value or b"") for part in self.kafka.topics[TOPICS.rsp] for one in part]
        return sorted((one["id"], one["outcome"]) for one in records)

    def committed(self) -> bool:
        """Whether everything in ``dmp.cmd`` is committed."""
        parts = self.kafka.topics[TOPICS.cmd]
        return all(self.kafka.positions.get((GROUP, TOPICS.cmd, at), 0) == len(part) for at, part in enumerate(parts))


@async_test
async def test_a_request_is_published_with_what_is_left_of_its_life_and_done_when_it_is_answered() -> None:
    bench = Bench()
    bench.ask("a", lifetime_s=60, age_s=20.1)
    async with bench.running():
        await bench.until(lambda: bench.client.published, "published")
        topic, body, expiry_s = bench.client.published[0]
        assert (topic, body["verb"]) == ("dmp/v1/r1/rae/cmd/op-a", "ping")
        assert expiry_s is not None
        assert 30 <= expiry_s <= 39, "no longer than it lives"
        assert not bench.committed()
        bench.answer("a")
        await bench.until(bench.committed, "committed")
        assert bench.client.ids() == ["a"]


@pytest.mark.parametrize("code", [0x00, 0x10, 0x87, 0x97])
def test_it_is_repeated_until_a_response_stands_in_kafka_whatever_the_puback_said(code) -> None:
    async def test() -> None:
        bench = Bench()
        bench.puback_code = code
        bench.ask("a")
        async with bench.running():
            await bench.until(lambda: bench.client.ids() == ["a"], "published")
            bench.skew_s = 2.5
            await bench.until(lambda: bench.client.ids() == ["a"] * 2, "repeated")
            bench.skew_s = 8.0
            await bench.until(lambda: bench.client.ids() == ["a"] * 3, "again")
            assert not bench.committed()
            bench.answer("a", outcome="done")
            await bench.until(bench.committed, "committed")

    asyncio.run(test())


@async_test
async def test_an_absent_rae_holds_up_no_other_and_its_requests_expire() -> None:
    bench = Bench()
    for number in range(30):
        bench.ask(f"absent {number}", rae="r1", lifetime_s=10)
    bench.ask("b", rae="r2")
    async with bench.running():
        await bench.until(lambda: "b" in bench.client.ids(), "the other's published")
        bench.answer("b", rae="r2", outcome="done")
        bench.skew_s = 12.5
        await bench.until(lambda: len(bench.said()) == 31, "30 expired")
        assert {outcome for name, outcome in bench.said() if name != "b"} == {"expired"}
        await bench.until(bench.committed, "committed")
    record = next(
        one for part in bench.kafka.topics[TOPICS.rsp] for one in part if ("dmpd-by", b"bridge") in one.headers
    )
    response = json.loads(record.value or b"")
    assert "epoch" not in response
    assert response["error"] == "no answer from the RAE within 10 s"


@async_test
async def test_what_is_dead_when_it_is_read_is_expired_at_once_and_never_published() -> None:
    bench = Bench()
    bench.ask("old", lifetime_s=5, age_s=6)
    async with bench.running():
        await bench.until(lambda: bench.said() == [("old", "expired")], "expired")
        await bench.until(bench.committed, "committed")
    assert bench.client.published == []


@async_test
async def test_after_a_long_outage_thousands_expire_each_once() -> None:
    bench = Bench()
    for number in range(5_000):
        bench.ask(f"{number}", rae=f"r{number % 50}", lifetime_s=5, age_s=60)
    async with bench.running():
        await bench.until(bench.committed, "committed")
    assert bench.client.published == []
    assert sorted(int(name) for name, _ in bench.said()) == list(range(5_000))


@async_test
async def test_too_many_for_one_rae_are_refused() -> None:
    bench = Bench(requests_per_rae_max=3)
    for number in range(5):
        bench.ask(str(number))
    async with bench.running(attached=False):
        await bench.until(lambda: bench.said() == [("3", "refused"), ("4", "refused")], "two refused")


@async_test
async def test_too_many_in_all_are_not_read_until_some_are_done() -> None:
    bench = Bench(requests_max=2)
    for number in range(2):
        bench.ask(str(number), rae="r1")
    async with bench.running() as downlink:
        await bench.until(lambda: bench.client.ids() == ["0", "1"], "both published")
        bench.ask("2", rae="r1")
        for _ in range(30):
            downlink.tick(time.monotonic())
            await asyncio.sleep(0.01)
        assert downlink.status()["pending"] == 2
        bench.answer("0", outcome="done")
        await bench.until(lambda: "2" in bench.client.ids(), "read on")


@async_test
async def test_after_a_restart_what_was_answered_is_neither_sent_again_nor_expired() -> None:
    bench = Bench()
    bench.ask("waits", rae="r1", lifetime_s=3600)
    bench.ask("done", rae="r1", lifetime_s=5, age_s=0)
    async with bench.running():
        await bench.until(lambda: len(bench.client.published) == 2, "published")
        bench.answer("done", outcome="done")
        await bench.until(lambda: bench.downlink.status()["pending"] == 1, "one done")  # type: ignore[union-attr]
    assert not bench.committed()
    bench.client = Client()
    bench.kafka.topics[TOPICS.cmd][partition_of("r1", N)] = [
        one._replace(timestamp_ms=one.timestamp_ms - 60_000)
        for one in bench.kafka.topics[TOPICS.cmd][partition_of("r1", N)]
    ]
    async with bench.running():
        await bench.until(lambda: bench.client.ids() == ["waits"], "the one that waits again")
        bench.answer("waits", outcome="done")
        await bench.until(bench.committed, "committed")
    assert bench.said() == [("done", "done"), ("waits", "done")]


@async_test
async def test_what_is_asked_again_just_before_a_restart_is_answered_again() -> None:
    """The first request under this id was answered long ago; an older one, to an absent RAE, keeps it from a commit."""
    bench = Bench()
    bench.ask("waits", lifetime_s=3600, age_s=600)
    bench.ask("again", lifetime_s=60, age_s=500)
    bench.answer("again", outcome="done", age_s=499)
    bench.ask("again", lifetime_s=60)
    async with bench.running():
        await bench.until(lambda: "again" in bench.client.ids(), "published")
        bench.answer("again", outcome="done")
        await bench.until(lambda: bench.downlink.status()["pending"] == 1, "done")  # type: ignore[union-attr]
    assert bench.said() == [("again", "done")] * 2, "the first was not said to be expired"


@async_test
async def test_a_record_twice_in_kafka_is_done_by_one_answer() -> None:
    bench = Bench()
    bench.ask("a")
    bench.ask("a")
    bench.ask("a", requester="op-b")
    async with bench.running():
        await bench.until(lambda: len(bench.client.published) == 3, "published")
        bench.answer("a")
        await bench.until(lambda: bench.downlink.status()["pending"] == 1, "op-a's are done")  # type: ignore[union-attr]
        bench.answer("a", requester="op-b")
        await bench.until(bench.committed, "committed")


def body(**fields: Any) -> bytes:
    said = {
        "v": 1,
        "kind": "request",
        "rae": "r1",
        "session": "rae",
        "at": "2026-01-01T00:00:00Z",
        "id": "i",
        "verb": "p",
    }
    return json.dumps(said | fields).encode()


@pytest.mark.parametrize(
    ("key", "value", "headers", "reason"),
    [
        (None, body(), (), "no_key"),
        (b"dmp/v1/r1/rae/ack", body(), (), "unsupported"),
        (
            b"dmp/v1/r1/rae/ack",
            b'{"v":1,"kind":"durable","rae":"r1","session":"rae","at":"2026-01-01T00:00:00Z","epoch":1,"stored":[]}',
            (),
            "bad_key",
        ),
        (b"dmp/v1/r1/rae/info", body(), (), "unsupported"),
        (
            b"dmp/v1/r1/rae/rsp/op-a",
            b'{"v":1,"kind":"response","rae":"r1","session":"rae","at":"2026-01-01T00:00:00Z","id":"i","outcome":"done"}',
            (),
            "bad_key",
        ),
        (
            b"dmp/v1/r1/rae/info",
            b'{"v":1,"kind":"event","rae":"r1","session":"rae","at":"2026-01-01T00:00:00Z","epoch":1,"code":"x"}',
            (),
            "bad_key",
        ),
        (b"$CONTROL/dynamic-security/v1", b"{}", (), "bad_key"),
        (b"$SYS/broker", b"{}", (), "bad_key"),
        (b"dmp/v1/+/rae/cmd/op-a", body(rae="+"), (), "bad_key"),
        (b"dmp/v1/r1/#", body(), (), "bad_key"),
        (b"dmp/v1/r1\0/rae/cmd/op-a", body(rae="r1\0"), (), "bad_key"),
        (b"dmp/v1/r1/rae/cmd/r2", body(), (), "bad_key"),
        (b"dmp/v1/r1/rae/rsp/op-a", body(), (), "unsupported"),
        (b"\xff\xfe", body(), (), "bad_key"),
        (b"dmp/v1/r1/rae/cmd/op-a", None, (), "empty"),
        (b"dmp/v1/r1/rae/cmd/op-a", b"", (), "empty"),
        (b"dmp/v1/r1/rae/cmd/op-a", b"{", (), "malformed"),
        (b"dmp/v1/r1/rae/cmd/op-a", b"\xff", (), "text"),
        (b"dmp/v1/r1/rae/cmd/op-a", body(rae="r2"), (), "mismatch"),
        (b"dmp/v1/r1/rae/cmd/op-a", body(session=SESSION), (), "mismatch"),
        (b"dmp/v1/r1/rae/cmd/op-a", body(v=2), (), "unsupported"),
        (b"dmp/v1/r1/rae/cmd/op-a", body(args=7), (), "malformed"),
        (b"dmp/v1/r1/rae/cmd/op-a", body(id="x\0"), (), "text"),
        (b"dmp/v1/r1/rae/cmd/op-a", body(x="y" * 262_144), (), "too_large"),
        (b"dmp/v1/r1/rae/cmd/op-a", body(), ((EXPIRY_HEADER, b"soon"),), "malformed"),
    ],
)
def test_what_is_no_request_for_its_own_topic_is_a_dead_letter_and_goes_to_no_broker(
    key, value, headers, reason
) -> None:
    async def test() -> None:
        bench = Bench()
        bench.put(key, value, headers)
        bench.ask("good", rae="r1")
        async with bench.running():
            await bench.until(lambda: bench.client.ids() == ["good"], "the good one published")
            bench.answer("good")
            await bench.until(bench.committed, "committed")
        (letter,) = [one for part in bench.kafka.topics[TOPICS.info_dead] for one in part]
        said = dict(letter.headers)
        assert said["dmpd-reason"] == reason.encode()
        assert (said["dmpd-by"], said["dmpd-topic"], said["dmpd-offset"]) == (b"bridge", b"dmp.cmd", b"0")
        assert letter.value == (value or b"")

    asyncio.run(test())


@async_test
async def test_a_dead_letter_that_kafka_finds_too_large_goes_without_its_value() -> None:
    bench = Bench()
    bench.put(b"nonsense", b"x" * 500_000)
    async with bench.running():
        await bench.until(bench.committed, "committed")
    (letter,) = [one for part in bench.kafka.topics[TOPICS.info_dead] for one in part]
    assert letter.value == b""
    assert dict(letter.headers)["dmpd-truncated"] == b"500000"


@async_test
async def test_without_a_connection_requests_wait_and_go_when_there_is_one() -> None:
    bench = Bench()
    bench.ask("a")
    async with bench.running(attached=False) as downlink:
        await bench.until(lambda: downlink.status()["pending"] == 1, "taken")
        bench.client.refusing = True
        downlink.attached(bench.client)
        bench.client.refusing = False
        downlink.attached(bench.client)
        await bench.until(lambda: bench.client.ids() == ["a"], "published")


@async_test
async def test_the_brokers_window_is_kept() -> None:
    bench = Bench()
    for rae in ("r1", "r2", "r3", "r4"):
        for number in range(10):
            bench.ask(f"{rae} {number}", rae=rae)
    async with bench.running() as downlink:
        deadline_s = time.monotonic() + 60
        while len(bench.client.published) < 20:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.005)
        downlink.tick(time.monotonic())
        assert len(bench.client.published) == 20
        for mid in range(1, 6):
            downlink.puback(mid, 0)
        assert len(bench.client.published) == 25


@async_test
async def test_while_kafka_is_away_nothing_is_lost_and_an_answer_in_a_raes_place_is_given_when_it_is_back() -> None:
    bench = Bench()
    bench.ask("a", lifetime_s=5)
    async with bench.running() as downlink:
        await bench.until(lambda: bench.client.ids() == ["a"], "published")
        bench.kafka.up = False
        downlink.tick(time.monotonic() + 7.5)
        assert bench.said() == []
        bench.kafka.up = True
        await bench.until(lambda: bench.said() == [("a", "expired")], "expired")
        await bench.until(bench.committed, "committed")


@pytest.mark.parametrize("trouble", ["refused", "fatal"])
def test_an_answer_or_a_dead_letter_that_kafka_does_not_take_is_logged_and_given_again(trouble, caplog) -> None:
    async def test() -> None:
        bench = Bench()
        bench.ask("old", lifetime_s=5, age_s=6)
        bench.put(b"nonsense", b"{}")
        sentence = "Broker: Topic authorization failed"
        async with bench.running(fatal=sentence if trouble == "fatal" else None):
            if trouble == "refused":
                bench.kafka.refused = dict.fromkeys((TOPICS.rsp, TOPICS.info_dead), sentence)
                logged = ("an answer in a RAE's place", "dead letter of dmp.cmd 0/")
                await bench.until(lambda: all(one in caplog.text for one in logged), "both refusals are logged")
                assert not bench.committed()
                bench.kafka.refused.clear()
                bench.skew_s = 11.0
            await bench.until(bench.committed, "committed")
        assert sentence in caplog.text
        assert bench.said() == [("old", "expired")]
        assert sum(len(part) for part in bench.kafka.topics[TOPICS.info_dead]) == 1
        assert len(bench.producers) == (2 if trouble == "fatal" else 1)

    asyncio.run(test())


@async_test
async def test_what_is_no_response_answers_nothing_and_costs_none_of_the_others_their_answer() -> None:
    bench = Bench()
    bench.ask("a")
    key = rsp_topic("r1", "rae", "op-a").encode()
    async with bench.running():
        await bench.until(lambda: bench.client.ids() == ["a"], "published")
        deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        wrong = [(key, said) for said in (deep, b"{", b'{"id":"\xff"}', b"", None)]
        wrong += [(None, b'{"id":"a"}'), (b"dmp/v1/r1/rae/info", b'{"id":"a"}')]
        bench.answer("a", behind=[StoredRecord(*one, (), time.time_ns() // 1_000_000) for one in wrong])
        await bench.until(bench.committed, "committed")


@async_test
async def test_a_kafka_that_does_not_let_us_read_is_named_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmpd.bridge.feed.RETRY_S", 0.05)
    bench = Bench()
    bench.ask("a")
    refusals = ["no such topic", "no such topic"]
    real = bench.open_requests

    def refusing() -> MemoryFollower:
        if refusals:
            raise KafkaUnreachableError(refusals.pop())
        return real()

    bench.open_requests = refusing  # type: ignore[method-assign]
    async with bench.running() as downlink:
        await bench.until(lambda: downlink.problem == "no such topic", "the trouble is told")
        await bench.until(lambda: bench.client.ids() == ["a"], "and over")
        assert downlink.problem is None


@async_test
async def test_a_feed_that_dies_takes_the_downlink_along(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    def break_down(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(MemoryFollower, "read", break_down)
    with pytest.raises(RuntimeError, match="not read any more"):
        async with bench.running():
            await bench.until(lambda: False, "the end")
