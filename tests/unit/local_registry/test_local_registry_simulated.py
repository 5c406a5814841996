"""The simulated LAN: repeatable, and every kind of thing happens on it."""

import asyncio
from collections import Counter

from dmpd.local_registry.source import Evidence
from dmpd.local_registry.sources.simulated import SimulatedLan
from tests.support.aio import async_test


def history(seed: str, steps: int) -> list[Evidence]:
    lan = SimulatedLan(devices=20, rate_per_s=10.0, seed=seed, now_s=lambda: 0.0)
    return [evidence for step in range(steps) for evidence in lan.step(step * 0.1, happens=True)]


def test_equal_seeds_give_equal_histories_and_others_do_not() -> None:
    assert history("a", 500) == history("a", 500)
    assert history("a", 500) != history("b", 500)


def test_everything_happens() -> None:
    lan = SimulatedLan(devices=20, rate_per_s=10.0, seed="s", now_s=lambda: 0.0)
    macs = {device.mac for device in lan.devices}
    esns = {device.esn for device in lan.devices}
    seen: Counter[str] = Counter()
    for step in range(200_000):
        for evidence in lan.step(step * 0.1, happens=True):
            seen["gone"] += evidence.gone
            seen["standby"] += evidence.power == "standby"
            seen["attribute"] += bool(evidence.attributes) and evidence.esn is None
            seen["new mac"] += evidence.mac not in macs and evidence.esn in esns
            seen["new esn"] += evidence.mac in macs and evidence.esn is not None and evidence.esn not in esns
            seen["new device"] += evidence.mac not in macs and evidence.esn is not None and evidence.esn not in esns
            macs |= {evidence.mac} if evidence.mac else set()
            esns |= {evidence.esn} if evidence.esn else set()
    assert len(lan.devices) == 20
    assert min(seen.values()) > 5, seen
    assert 200 <= seen["gone"] <= 500, "each device about every 20 minutes"
    assert sum(device.present for device in lan.devices) >= 15


@async_test
async def test_signals_begin_with_all_that_is_there_and_probes_are_answered() -> None:
    lan = SimulatedLan(devices=5, rate_per_s=0.0, seed="s")
    signals = lan.signals()
    first = [await anext(signals) for _ in range(5)]
    assert {one.mac for one in first if isinstance(one, Evidence)} == {device.mac for device in lan.devices}
    lan.devices[0].present = False
    for device in lan.devices[:2]:
        await lan.poke(ip=device.ip, mac=device.mac)
    answers = [await asyncio.wait_for(anext(signals), 1.0) for _ in range(2)]
    assert [one.reach for one in answers if isinstance(one, Evidence)] == ["down", "up"]
    await signals.aclose()  # type: ignore[attr-defined]
