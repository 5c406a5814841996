"""The whole uplink between a broker session and a producer that the test drives step by step."""

import asyncio
import json
from contextlib import asynccontextmanager

import msgspec

from dmpd.bridge.settings import BridgeSettings
from dmpd.bridge.uplink import FILTERS, Uplink
from dmpd.model.messages import Durable
from dmpd.model.topics import partition_of
from dmpd.runtime.mqtt import MqttUnreachableError
from dmpd.runtime.settings import MqttSettings, TopicSettings
from tests.support.aio import async_test, until
from tests.support.bridge_twins import ScriptedBroker, ScriptedProducer, refused

SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
TOPIC = f"dmp/v1/A1/{SESSION}/info"
TOO_LARGE = "Broker: Message size too large"
WAIT_S = 60.0


def change(seq: int, **fields: object) -> bytes:
    body = {"v": 1, "kind": "change", "rae": "A1", "session": SESSION, "epoch": 7, "seq": seq, "rev": seq, **fields}
    return json.dumps(body).encode()


class Rig:
    def __init__(self, *, bytes_max: int = 1 << 20, messages_max: int = 1000, keepalive_s: int = 20) -> None:
        self.broker = ScriptedBroker()
        self.producers: list[ScriptedProducer] = []
        self.uplink = Uplink(
            BridgeSettings(
                in_flight_bytes_max=bytes_max,
                in_flight_messages_max=messages_max,
                retry_first_s=0.01,
                retry_max_s=0.02,
                takeover_retry_first_s=0.5,
                durable_delay_s=0.01,
            ),
            mqtt=msgspec.structs.replace(MqttSettings(), keepalive_s=keepalive_s),
            topics=TopicSettings(),
            partitions={"dmp.info": 4, "dmp.rsp": 4},
            connect=self.broker.connect,
            make_producer=self._producer,
            random=lambda: 0.5,
            ask_partitions=self._ask_partitions,
        )
        self.partitions = 4
        """What Kafka says when it is asked again."""

    async def _ask_partitions(self) -> dict[str, int]:
        await asyncio.sleep(0)
        return dict.fromkeys(("dmp.info", "dmp.rsp"), self.partitions)

    def _producer(self, *, one_by_one: bool) -> ScriptedProducer:
        self.producers.append(ScriptedProducer(one_by_one=one_by_one))
        return self.producers[-1]

    @property
    def producer(self) -> ScriptedProducer:
        return self.producers[-1]

    def told(self) -> set[int]:
        """Rows of all ``durable`` acks that any connection carried."""
        rows: set[int] = set()
        for client in self.broker.connections:
            for topic, payload in client.published:
                assert topic == "dmp/v1/A1/rae/ack"
                ack = msgspec.json.decode(payload, type=Durable)
                assert (ack.rae, ack.epoch) == ("A1", 7)
                rows |= {seq for first, last in ack.stored for seq in range(first, last + 1)}
        return rows


@asynccontextmanager
async def running(rig: Rig):
    task = asyncio.create_task(rig.uplink.run())
    await until(lambda: rig.broker.connected or task.done(), "connected")
    yield rig
    rig.uplink.stop()
    await asyncio.wait_for(task, WAIT_S)


@async_test
async def test_nothing_is_acknowledged_before_kafka_has_it_and_all_in_the_order_of_receipt() -> None:
    async with running(Rig()) as rig:
        for seq in range(1, 5):
            rig.broker.publish(TOPIC, change(seq))
        assert rig.producer.values() == [change(seq) for seq in range(1, 5)]
        assert rig.broker.client.filters == list(FILTERS)
        rig.producer.report(3)
        rig.producer.report(1)
        await until(lambda: rig.told() == {2, 4}, "rows 2 and 4 told, whatever their place")
        assert rig.broker.client.acked == []

        rig.producer.report(0)
        await until(lambda: rig.broker.client.acked == [change(1), change(2)], "1 and 2 acknowledged")
        rig.producer.report(2)
        await until(lambda: len(rig.broker.client.acked) == 4, "all acknowledged")
        await until(lambda: rig.told() == {1, 2, 3, 4}, "all rows told")


@async_test
async def test_reports_of_an_older_connection_acknowledge_nothing_but_tell_the_rae() -> None:
    async with running(Rig()) as rig:
        rig.broker.publish(TOPIC, change(1))
        rig.broker.publish(TOPIC, change(2))
        first = rig.broker.client
        first.cut()
        await until(lambda: len(rig.broker.connections) == 2 and rig.broker.connected, "connected again")
        assert rig.producer.values() == [change(1), change(2)] * 2, "both delivered again"
        rig.producer.report(0)
        rig.producer.report(1)
        await until(lambda: rig.told() == {1, 2}, "rows told")
        assert rig.broker.client.acked == []
        assert first.acked == []

        rig.producer.report(2)
        rig.producer.report(3)
        await until(lambda: rig.broker.client.acked == [change(1), change(2)], "acknowledged on the new connection")


@async_test
async def test_while_kafka_stalls_reading_stops_and_goes_on_below_half() -> None:
    async with running(Rig(messages_max=16)) as rig:
        for seq in range(1, 101):
            rig.broker.publish(TOPIC, change(seq))
        assert rig.broker.client.paused
        assert len(rig.producer.sent) == 17
        for index in range(8):
            rig.producer.report(index)
        await until(lambda: len(rig.broker.client.acked) == 8, "eight acknowledged")
        assert len(rig.producer.sent) == 17, "still above half"
        rig.producer.report(8)
        await until(lambda: len(rig.producer.sent) > 17, "reading again")
        rig.producer.automatic = True
        for index in range(9, len(rig.producer.sent)):
            rig.producer.report(index)
        await until(lambda: len(rig.broker.client.acked) == 100, "all acknowledged")
        assert len(rig.broker.connections) == 1


@async_test
async def test_stalled_for_half_a_keepalive_it_leaves_and_is_back_when_kafka_answers() -> None:
    rig = Rig(messages_max=16, keepalive_s=1)
    async with running(rig):
        for seq in range(1, 31):
            rig.broker.publish(TOPIC, change(seq))
        first = rig.broker.client
        await until(first.closed.done, "left the broker")
        assert first.disconnected_by_us
        assert first.acked == []
        await asyncio.sleep(0.3)
        assert len(rig.broker.connections) == 1, "came back although Kafka stalls"
        assert rig.uplink.problem is not None

        rig.producer.automatic = True
        for index in range(17):
            rig.producer.report(index)
        await until(lambda: len(rig.broker.connections) == 2, "back again")
        await until(lambda: len(rig.broker.client.acked) == 30, "all acknowledged")
        await until(lambda: rig.uplink.problem is None, "all well again")


@async_test
async def test_a_fatal_producer_error_drops_the_connection_and_nothing_is_acknowledged() -> None:
    async with running(Rig()) as rig:
        rig.broker.publish(TOPIC, change(1))
        rig.broker.publish(TOPIC, change(2))
        first, broken = rig.broker.client, rig.producer
        broken.report(1)
        await until(lambda: rig.told() == {2}, "row 2 told")
        broken.fatal = "out of sequence"
        broken.report(0, "fenced")
        await until(lambda: len(rig.broker.connections) == 2 and rig.broker.connected, "connected again")
        assert first.acked == []
        assert len(rig.producers) == 2
        assert rig.producer.values() == [change(1), change(2)]
        rig.producer.report(0)
        rig.producer.report(1)
        await until(lambda: rig.broker.client.acked == [change(1), change(2)], "acknowledged")
        assert rig.producer.values("dmp.info.dead") == []


@async_test
async def test_after_a_failure_kafka_is_asked_for_the_partitions_again() -> None:
    async with running(Rig()) as rig:
        rig.broker.publish(TOPIC, change(1))
        assert rig.producer.sent[0].partition == partition_of("A1", 4)
        rig.partitions = 1
        rig.producer.report(0, "Local: Unknown partition")
        await until(lambda: len(rig.producers) == 2 and rig.producer.sent, "sent again")
        assert rig.producer.sent[0].partition == 0


@async_test
async def test_a_silent_fatal_error_is_noticed_too() -> None:
    async with running(Rig()) as rig:
        rig.producer.fatal = "fenced"
        await until(lambda: len(rig.producers) == 2 and len(rig.broker.connections) == 2, "begun anew")


@async_test
async def test_poison_costs_itself_and_is_told_as_durable() -> None:
    async with running(Rig()) as rig:
        rig.producer.automatic = True
        rig.broker.publish(TOPIC, change(1))
        rig.broker.publish(TOPIC, change(2, rae="B2"))
        rig.broker.publish(TOPIC, b"{")
        rig.broker.publish(f"dmp/v1/u-team1/{SESSION}/info", change(9, rae="u-team1"))
        rig.broker.publish(TOPIC, change(3))
        await until(lambda: len(rig.broker.client.acked) == 5, "all acknowledged")
        assert rig.producer.values() == [change(1), change(3)]
        assert rig.producer.values("dmp.info.dead") == [change(2, rae="B2"), b"{"]
        await until(lambda: rig.told() == {1, 2, 3}, "the dead-lettered row too")


@async_test
async def test_what_the_client_refuses_goes_to_the_dead_letters_and_is_acknowledged_in_its_place() -> None:
    async with running(Rig()) as rig:
        rig.producer.refuse = change(1)
        rig.broker.publish(TOPIC, change(1))
        rig.broker.publish(TOPIC, change(2))
        await until(lambda: rig.producer.values("dmp.info.dead") == [change(1)], "sent as a dead letter")
        rig.producer.report(0)
        await until(lambda: rig.told() == {2}, "row 2 told")
        assert rig.broker.client.acked == []
        rig.producer.report(1)
        await until(lambda: rig.broker.client.acked == [change(1), change(2)], "acknowledged")
        await until(lambda: rig.told() == {1, 2}, "told")
        assert len(rig.producers) == 1


@async_test
async def test_of_a_refused_batch_the_record_at_fault_is_found_and_nothing_passes_it() -> None:
    async with running(Rig()) as rig:
        for seq in (1, 2, 3):
            rig.broker.publish(TOPIC, change(seq))
        for index in range(3):
            rig.producer.report(index, TOO_LARGE)
        await until(lambda: len(rig.producers) == 2 and len(rig.producer.sent) == 3, "all sent again")
        assert rig.producer.one_by_one
        assert rig.producers[0].values("dmp.info.dead") == []
        rig.producer.report(0)
        rig.producer.report(1, TOO_LARGE)
        rig.producer.report(2, "Local: Purged in queue")
        await until(lambda: len(rig.producers) == 3 and len(rig.producer.sent) == 3, "and again")
        assert rig.producer.one_by_one
        assert rig.producer.values() == [change(1), change(3)]
        assert rig.producer.values("dmp.info.dead") == [change(2)]
        rig.producer.automatic = True
        for index in range(3):
            rig.producer.report(index)
        await until(lambda: rig.broker.client.acked == [change(1), change(2), change(3)], "acknowledged")
        await until(lambda: len(rig.producers) == 4, "batches again")
        assert not rig.producer.one_by_one
        assert len(rig.broker.connections) == 3
        rig.producer.automatic = True
        rig.broker.publish(TOPIC, change(4))
        await until(lambda: rig.told() == {1, 2, 3, 4}, "told")


@async_test
async def test_if_the_dead_letter_is_refused_too_all_begins_anew() -> None:
    async with running(Rig()) as rig:
        rig.producer.refuse = change(1)
        rig.broker.publish(TOPIC, change(1))
        await until(lambda: len(rig.producer.sent) == 1, "sent as a dead letter")
        rig.producer.report(0, "refused")
        await until(lambda: len(rig.broker.connections) == 2 and len(rig.producers) == 2, "begun anew")
        assert rig.broker.connections[0].acked == []
        assert rig.producer.values() == [change(1)]


@async_test
async def test_what_is_kafkas_own_fault_is_no_dead_letter_however_long_it_lasts() -> None:
    async with running(Rig()) as rig:
        rig.broker.publish(TOPIC, change(1))
        for times in range(1, 5):
            await until(lambda times=times: len(rig.producers) == times and rig.producer.sent, "sent (again)")
            rig.producer.report(0, "Broker: Topic authorization failed")
        await until(lambda: len(rig.producers) == 5 and rig.producer.sent, "begun anew")
        rig.producer.report(0)
        await until(lambda: rig.told() == {1}, "told in the end")
        assert [one.values("dmp.info.dead") for one in rig.producers] == [[]] * 5
        assert [client.acked for client in rig.broker.connections] == [[], [], [], [], [change(1)]]
        await until(lambda: rig.uplink.problem is None, "all well again")


@async_test
async def test_a_full_producer_queue_keeps_the_order() -> None:
    rig = Rig()
    async with running(rig):
        rig.producer.capacity = 2
        for seq in range(1, 6):
            rig.broker.publish(TOPIC, change(seq))
        assert len(rig.producer.sent) == 2
        rig.producer.capacity = 3
        rig.broker.publish(TOPIC, change(6))
        assert len(rig.producer.sent) == 2, "the newest took the place that became free"
        for index in range(6):
            await until(lambda index=index: len(rig.producer.sent) > index, "sent in its turn")
            rig.producer.report(index)
        await until(lambda: len(rig.broker.client.acked) == 6, "all acknowledged")
        assert rig.producer.values() == [change(seq) for seq in range(1, 7)]


@async_test
async def test_refusals_and_takeovers_are_waited_out() -> None:
    rig = Rig()
    rig.broker.refusals.extend([refused(0x87), refused(0x97)])
    async with running(rig):
        await until(lambda: rig.broker.connected, "connected in the end")
        began_s = asyncio.get_running_loop().time()
        rig.broker.client.cut("session taken over", 0x8E)
        await until(lambda: len(rig.broker.connections) == 2, "connected again")
        assert asyncio.get_running_loop().time() - began_s > 0.35, "fights over its name"


async def cut_and_back(rig: Rig, *, away: bool = False) -> None:
    """The broker hangs up without a word, and (``away``) takes no connection for a moment."""
    before = len(rig.broker.connections)
    if away:
        rig.broker.refusals.append(MqttUnreachableError("nobody there"))
    rig.broker.client.cut("the broker hung up")
    await until(lambda: len(rig.broker.connections) > before and rig.broker.connected, "connected again")


@async_test
async def test_a_broker_that_hangs_up_again_and_again_without_a_word_is_a_name_taken_over(caplog) -> None:
    """Mosquitto 2.0.11 says no 0x8E; one that dies does not take the next connection at once."""
    async with running(Rig()) as rig:
        for _ in range(3):
            await cut_and_back(rig, away=True)
        await cut_and_back(rig)
        await cut_and_back(rig)
        assert "second bridge" not in caplog.text
        began_s = asyncio.get_running_loop().time()
        rig.broker.client.cut("the broker hung up")
        await until(lambda: "does a second bridge run?" in (rig.uplink.problem or ""), "it says so")
        await until(lambda: rig.broker.connected, "connected again")
        assert asyncio.get_running_loop().time() - began_s > 0.35, "fights over its name"


@async_test
async def test_a_drain_acknowledges_what_is_in_flight_and_reads_no_more() -> None:
    rig = Rig()
    task = asyncio.create_task(rig.uplink.run())
    await until(lambda: rig.broker.connected, "connected")
    rig.broker.publish(TOPIC, change(1))
    rig.broker.publish(TOPIC, change(2))
    drain = asyncio.create_task(rig.uplink.drain(WAIT_S))
    await until(lambda: rig.broker.client.paused, "stopped reading")
    rig.broker.publish(TOPIC, change(3))
    rig.producer.report(1)
    rig.producer.report(0)
    assert await drain == 0
    await asyncio.wait_for(task, WAIT_S)
    client = rig.broker.client
    assert client.acked == [change(1), change(2)]
    assert client.disconnected_by_us
    assert rig.told() == {1, 2}
    assert len(rig.producer.sent) == 2
    assert client.options["session_expiry_s"] == 86_400


@async_test
async def test_a_drain_gives_up_at_its_deadline_or_when_hurried() -> None:
    for timeout_s, hurry in ((0.2, lambda: False), (60.0, lambda: True)):
        rig = Rig()
        task = asyncio.create_task(rig.uplink.run())
        await until(lambda rig=rig: rig.broker.connected, "connected")
        rig.broker.publish(TOPIC, change(1))
        assert await asyncio.wait_for(rig.uplink.drain(timeout_s, hurry=hurry), WAIT_S / 2) == 1
        await asyncio.wait_for(task, WAIT_S)
        assert rig.broker.client.acked == []


@async_test
async def test_the_status_names_the_raes_whose_rows_wait_for_kafka() -> None:
    async with running(Rig()) as rig:
        rig.broker.publish(TOPIC, change(1))
        await until(lambda: rig.uplink.status()["durable_lag"] != [], "a look at the lags")
        assert [one["rae"] for one in rig.uplink.status()["durable_lag"]] == ["A1"]
        rig.producer.report(0)
        await until(lambda: rig.uplink.status()["durable_lag"] == [], "told")
