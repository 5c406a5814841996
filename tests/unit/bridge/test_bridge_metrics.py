"""The bridge's metrics say what happened: read as Prometheus reads them, before and after."""

import time

from dmpd.runtime import metrics
from tests.support.aio import async_test
from tests.unit.bridge.test_bridge_downlink import Bench
from tests.unit.bridge.test_bridge_uplink import TOPIC, Rig, change, running, until

FATES = ("published", "answered", "expired", "refused", "dead_letter")


def shown() -> dict[str, float]:
    """Each sample by its name and labels, as exposed."""
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


class Since:
    """How much has been added to a sample since this was made."""

    def __init__(self) -> None:
        self._before = shown()

    def __getitem__(self, name: str) -> float:
        return shown().get(f"dmpd_bridge_{name}", 0.0) - self._before.get(f"dmpd_bridge_{name}", 0.0)


def now(name: str) -> float:
    return shown()[f"dmpd_bridge_{name}"]


@async_test
async def test_what_is_in_flight_and_how_long_it_waits() -> None:
    since = Since()
    async with running(Rig()) as rig:
        rig.broker.publish(TOPIC, change(1))
        rig.broker.publish(TOPIC, change(2))
        rig.uplink.tick(time.monotonic() + 7.0)
        assert (now("connected"), now("in_flight_messages")) == (1, 2)
        assert now("in_flight_bytes") >= len(change(1)) + len(change(2))
        assert 7.0 <= now("puback_age_seconds") < 60.0
        assert 7.0 <= now('durable_lag_seconds{rank="1"}') < 60.0
        assert now('durable_lag_seconds{rank="2"}') == 0, "one RAE alone"
        rig.producer.report(0)
        rig.producer.report(1)
        await until(lambda: rig.told() == {1, 2} and len(rig.broker.client.acked) == 2, "told and acknowledged")
        rig.uplink.tick(time.monotonic() + 9.0)
        assert (now("in_flight_messages"), now("in_flight_bytes"), now("puback_age_seconds")) == (0, 0, 0)
        assert now('durable_lag_seconds{rank="1"}') == 0
        assert (since["received_total"], since["pubacks_total"], since["redelivered_total"]) == (2, 2, 0)
        assert since['delivered_total{topic="dmp.info"}'] == since["delivery_seconds_count"] == 2
        assert since["durable_seconds_count"] == since['durables_total{fate="sent"}'] >= 1
    assert now("connected") == 0


@async_test
async def test_redeliveries_late_reports_dead_letters_and_strangers() -> None:
    since = Since()
    async with running(Rig()) as rig:
        rig.broker.publish(TOPIC, change(1))
        rig.broker.client.cut()
        await until(lambda: len(rig.broker.connections) == 2 and rig.broker.connected, "connected again")
        rig.producer.automatic = True
        rig.producer.report(0)
        rig.producer.report(1)
        rig.broker.publish(TOPIC, b"{")
        rig.broker.publish(TOPIC.replace("A1", "u-team1"), change(2, rae="u-team1"))
        await until(lambda: len(rig.broker.client.acked) == 3, "all acknowledged")
        rig.uplink.tick(time.monotonic())
        assert (since["received_total"], since["redelivered_total"], since["late_reports_total"]) == (4, 1, 1)
        assert (since['dead_letters_total{reason="malformed"}'], since["strangers_total"]) == (1, 1)
        rig.producer.fatal = "fenced"
        await until(lambda: len(rig.producers) == 2, "begun anew")
    assert since["producers_total"] == 2
    assert since['connects_total{outcome="connected"}'] >= 2


@async_test
async def test_seconds_without_reading() -> None:
    async with running(Rig(messages_max=16)) as rig:
        rig.uplink.tick(time.monotonic())
        assert now("paused_seconds") == 0
        for seq in range(1, 40):
            rig.broker.publish(TOPIC, change(seq))
        assert rig.broker.client.paused
        rig.uplink.tick(time.monotonic() + 3.0)
        assert 3.0 <= now("paused_seconds") < 60.0


@async_test
async def test_requests_by_their_fate() -> None:
    since = Since()
    bench = Bench(requests_per_rae_max=1)
    bench.ask("a")
    bench.ask("too many")
    bench.ask("old", rae="r2", lifetime_s=5, age_s=6)
    bench.put(b"nonsense", b"{}")
    async with bench.running() as downlink:
        await bench.until(lambda: bench.said() == [("old", "expired"), ("too many", "refused")], "said")
        await bench.until(lambda: bench.client.ids() == ["a"], "published")
        downlink.tick(time.monotonic())
        assert now("requests_pending") == 1
        bench.skew_s = 2.5
        await bench.until(lambda: bench.client.ids() == ["a"] * 2, "repeated")
        bench.answer("a")
        await bench.until(bench.committed, "committed")
        downlink.tick(time.monotonic())
        assert now("requests_pending") == 0
    fates = {fate: since[f'requests_total{{fate="{fate}"}}'] for fate in FATES}
    assert fates == {"published": 2, "answered": 1, "expired": 1, "refused": 1, "dead_letter": 1}
    assert since["request_seconds_count"] == 1
    assert since['request_pubacks_total{code="0x10"}'] >= 1
