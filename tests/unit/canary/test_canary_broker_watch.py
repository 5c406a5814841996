"""The broker's own figures: those of before have our own subscriptions, those of after are waited for a while."""

from types import SimpleNamespace

import pytest

from dmpd.canary import broker_watch
from dmpd.canary.broker_watch import NAMES, BrokerWatch
from dmpd.runtime.mqtt_stream import MqttUnreachableError
from dmpd.runtime.settings import MqttSettings
from tests.support.aio import async_test

FIGURES = {"clients": 4, "subscriptions": 9, "retained": 2, "dropped": 0, "heap_bytes": 1000}


class Broker:
    """In the place of a connection: says its figures to who subscribes."""

    def __init__(self, on_message):
        self._on_message = on_message
        self.subscribed = []

    async def subscribe(self, filters, **_):
        self.subscribed += filters
        for topic in filters:
            self.says(topic, str(FIGURES[NAMES[topic]]).encode())

    def says(self, topic, payload):
        self._on_message(SimpleNamespace(topic=topic, payload=payload))


@pytest.fixture
def broker(monkeypatch):
    async def connect(settings, *, on_message, **_):
        return Broker(on_message)

    monkeypatch.setattr(broker_watch, "_LOOK_S", 0.0)
    monkeypatch.setattr(broker_watch.MqttClient, "connect", connect)


@async_test
async def test_what_was_there_before_has_our_own_subscriptions_and_a_crowd_that_is_gone_is_waited_for(broker):
    watch = BrokerWatch(MqttSettings())
    await watch.start()
    assert watch.before == FIGURES | {"subscriptions": 9 + len(NAMES)}
    topics = {name: topic for topic, name in NAMES.items()}
    looks = [b"3000", b"40", b"13"]

    class Figures(dict):
        def get(self, name, default=None):
            if name == "subscriptions" and looks:
                watch._client.says(topics[name], looks.pop(0))
            return super().get(name, default)

    watch.figures = Figures(watch.figures)
    assert (await watch.settled(600.0))["subscriptions"] == 13
    assert looks == []


@async_test
async def test_what_stays_is_told_when_the_time_is_up_and_what_is_no_number_is_not(broker):
    watch = BrokerWatch(MqttSettings())
    await watch.start()
    topics = {name: topic for topic, name in NAMES.items()}
    watch._client.says(topics["retained"], b"3000")
    watch._client.says(topics["clients"], b"many")
    watch._client.says("$SYS/other", b"1")
    assert await watch.settled(0.0) == FIGURES | {"retained": 3000}


@async_test
async def test_a_broker_that_tells_nothing_is_no_reason_for_anything(monkeypatch):
    async def connect(*_, **__):
        raise MqttUnreachableError("TCP: refused")

    monkeypatch.setattr(broker_watch.MqttClient, "connect", connect)
    watch = BrokerWatch(MqttSettings())
    await watch.start()
    assert (watch.before, await watch.settled(600.0)) == ({}, {})
    await watch.stop()
