"""The uplink on the in-memory twin of the broker: what a RAE publishes arrives, whatever happens to the broker."""

import asyncio

from dmpd.bridge.settings import BridgeSettings
from dmpd.bridge.uplink import CLIENT_ID, Uplink
from dmpd.runtime.mqtt_memory import MemoryBroker
from dmpd.runtime.settings import MqttSettings, TopicSettings
from tests.support.aio import async_test, until
from tests.support.bridge_twins import ScriptedProducer
from tests.support.ledger import Publisher, problems

WAIT_S = 60.0


def make_uplink(broker: MemoryBroker, producer: ScriptedProducer) -> Uplink:
    return Uplink(
        BridgeSettings(retry_first_s=0.01, retry_max_s=0.05, durable_delay_s=0.02),
        mqtt=MqttSettings(),
        topics=TopicSettings(),
        partitions={"dmp.info": 4, "dmp.rsp": 4},
        connect=broker.connect,
        make_producer=lambda one_by_one: producer,
        random=lambda: 0.5,
    )


@async_test
async def test_all_rows_reach_kafka_in_order_through_kills_of_the_broker_with_and_without_its_memory() -> None:
    broker, producer = MemoryBroker(), ScriptedProducer()
    producer.automatic = True
    uplink = make_uplink(broker, producer)
    running = asyncio.create_task(uplink.run())
    await until(lambda: uplink.problem is None, "connected")
    publisher = Publisher("A1", MqttSettings(), rows=600, connect=broker.connect)
    publishing = asyncio.create_task(publisher.run())
    for mark, survives in ((500, True), (350, False), (200, True), (80, False)):
        await until(lambda mark=mark: publisher.unstored <= mark, f"{mark} rows left")
        broker.kill(sessions_survive=survives)
        await until(lambda: uplink.problem == "the broker does not answer", "the bridge finds nobody there")
        broker.start()
    await until(publishing.done, "all durable")
    publishing.result()
    assert problems([publisher], [(sent.key, sent.value) for sent in producer.sent]) == []
    await uplink.drain(1.0)
    await asyncio.wait_for(running, WAIT_S)


@async_test
async def test_two_bridges_do_not_fight_over_the_name() -> None:
    broker, producer = MemoryBroker(), ScriptedProducer()
    uplink = make_uplink(broker, producer)
    running = asyncio.create_task(uplink.run())
    await until(lambda: uplink.problem is None, "connected")
    other = await broker.connect(
        MqttSettings(),
        client_id=CLIENT_ID,
        clean_start=False,
        session_expiry_s=60,
        will=None,
        on_message=lambda message: None,
        on_puback=lambda mid, code: None,
        receive_maximum=10,
    )
    await until(lambda: uplink.problem == "taken over; does a second bridge run?", "evicted")
    await asyncio.sleep(0.3)
    assert not other.closed.done(), "took the name back at once"
    uplink.stop()
    await asyncio.wait_for(running, WAIT_S)
