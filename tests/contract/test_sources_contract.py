"""What every pair of LAN sources does, the real ones on a LAN of namespaces and their twins in memory alike."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import pytest

from dmpd.local_registry.source import LanDown, LanSource, LanUp
from dmpd.local_registry.sources.lease_socket import LeaseSocket
from dmpd.local_registry.sources.leases import LeaseSource
from dmpd.local_registry.sources.memory import MemoryLan
from dmpd.local_registry.sources.neighbours import NeighbourSource
from tests.support.lan import Recorder, running_lan

DOWN, UP = LanDown("neighbours"), LanUp("neighbours")


class Bench(Protocol):
    """One LAN with two devices, d1 and d2, and its two sources being recorded: leases, neighbours.

    ``hooked`` = its DHCP server runs ``lease_hook``, and the source listens.
    """

    recorder: Recorder
    hooked: bool

    def vendor_class(self, name: str) -> str:
        """What a device tells the DHCP server of its make."""

    def who(self, name: str) -> tuple[str, str]:
        """MAC and port of a device."""

    def plug(self, name: str) -> None: ...

    def unplug(self, name: str) -> None: ...

    def lan(self, *, up: bool) -> None: ...

    def forget_neighbours(self) -> None:
        """Make the kernel unsure of everybody, so that it asks as soon as it is poked."""


class MemoryBench:
    def __init__(self, *, hooked: bool) -> None:
        self.hooked = hooked
        self._devices = {}

    def make(self) -> list[LanSource]:
        self._lan = MemoryLan(hooked=self.hooked)
        for number in (1, 2):
            name, mac, ip = f"d{number}", f"02:00:00:77:00:0{number}", f"10.77.1.{number}"
            self._devices[name] = self._lan.add(
                mac, ip=ip, hostname=f"dut-{number}", port=f"lan{number}", vendor_class=self.vendor_class(name)
            )
        return [self._lan.leases, self._lan.neighbours]

    def vendor_class(self, name: str) -> str:
        return f"maker of {name}"

    def who(self, name: str) -> tuple[str, str]:
        return self._devices[name].mac, self._devices[name].port

    def plug(self, name: str) -> None:
        self.recorder.call(lambda: self._lan.plug(self._devices[name]))

    def unplug(self, name: str) -> None:
        self.recorder.call(lambda: self._lan.unplug(self._devices[name]))

    def lan(self, *, up: bool) -> None:
        self.recorder.call(self._lan.lan_up if up else self._lan.lan_down)

    def forget_neighbours(self) -> None:
        """It always asks at once."""


class NamespaceBench:
    def __init__(self, lan, *, hooked: bool) -> None:
        self._lan = lan
        self.hooked = hooked

    def make(self) -> list[LanSource]:
        told = LeaseSocket(self._lan.lease_socket) if self.hooked else None
        return [LeaseSource(self._lan.lease_file, socket=told), NeighbourSource("br-lan")]

    def vendor_class(self, name: str) -> str:
        return f"dmpd-lab-{name}"

    def who(self, name: str) -> tuple[str, str]:
        dut = self._lan.lab.dut(name)
        return dut.mac, dut.port

    def plug(self, name: str) -> None:
        self._lan.lab.plug(name)

    def unplug(self, name: str) -> None:
        self._lan.lab.unplug(name)

    def lan(self, *, up: bool) -> None:
        self._lan.router("ip", "link", "set", "br-lan", "up" if up else "down")

    def forget_neighbours(self) -> None:
        self._lan.router("ip", "neigh", "flush", "dev", "br-lan")


@contextmanager
def memory_bench(*, hooked: bool) -> Iterator[Bench]:
    bench = MemoryBench(hooked=hooked)
    with Recorder(bench.make) as bench.recorder:
        bench.plug("d1")
        bench.plug("d2")
        yield bench


@contextmanager
def namespace_bench(*, hooked: bool) -> Iterator[Bench]:
    with running_lan(devices=2) as lan:
        bench = NamespaceBench(lan, hooked=hooked)
        lan.start_dnsmasq(hooked=hooked)
        with Recorder(bench.make, namespace=lan.lab.router_namespace) as bench.recorder:
            for dut in lan.lab.duts():
                lan.start_dut(dut)
            yield bench


BENCHES: dict[str, Callable] = {
    "memory": partial(memory_bench, hooked=False),
    "memory, hooked": partial(memory_bench, hooked=True),
    "namespaces": partial(namespace_bench, hooked=False),
    "namespaces, hooked": partial(namespace_bench, hooked=True),
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.namespaces if name.startswith("namespaces") else ()) for name in BENCHES
    ]
)
def bench(request) -> Iterator[Bench]:
    with BENCHES[request.param]() as bench:
        yield bench


def settled(bench: Bench) -> str:
    """Both devices were told of by both sources; returns d1's address."""
    ips = []
    for name in ("d1", "d2"):
        mac, _port = bench.who(name)
        ips.append(bench.recorder.wait_for(source="leases", mac=mac)[1].ip)
        bench.recorder.wait_for(source="neighbours", mac=mac, reach="up")
    return ips[0]


def test_a_new_device_is_told_by_its_lease_first_and_then_by_the_kernel(bench):
    mac, port = bench.who("d1")
    leased_s, lease = bench.recorder.wait_for(source="leases", mac=mac)
    assert (lease.hostname, lease.client_id, lease.reach) == ("dut-1", f"01:{mac}", "up")
    seen_s, sighting = bench.recorder.wait_for(source="neighbours", mac=mac, ip=lease.ip)
    assert (sighting.port, sighting.reach, sighting.gone) == (port, "up", False)
    assert leased_s < seen_s + 1.0, "the kernel's word waits for the lease, on an idle machine"


def test_the_vendor_class_comes_with_the_hook_and_the_arrival_once_with_or_without(bench):
    settled(bench)
    for name in ("d1", "d2"):
        mac, _port = bench.who(name)
        if bench.hooked:
            _at_s, told = bench.recorder.wait_for(mac=mac, vendor_class=bench.vendor_class(name))
            assert (told.source, told.hostname, told.client_id) == ("leases", f"dut-{name[1]}", f"01:{mac}")
        said = bench.recorder.evidence(source="leases", mac=mac)
        assert [one.arrived for one in said].count(True) == 1
        assert [one for one in said if one.gone] == []
        assert {one.vendor_class for one in said if not bench.hooked} <= {None}


def test_a_pulled_cable_is_gone_at_once_and_back_when_plugged(bench):
    settled(bench)
    mac, port = bench.who("d1")
    since = bench.recorder.mark()
    bench.unplug("d1")
    _at_s, gone = bench.recorder.wait_for(since=since, source="neighbours", mac=mac, reach="down", timeout_s=10)
    assert (gone.gone, gone.port) == (True, port)
    since = bench.recorder.mark()
    bench.plug("d1")
    bench.recorder.wait_for(since=since, source="neighbours", mac=mac, reach="up", port=port, timeout_s=10)
    other, _port = bench.who("d2")
    assert bench.recorder.evidence(mac=other, reach="down") == []


def test_a_lan_that_goes_down_takes_nobody_with_it(bench):
    settled(bench)
    since = bench.recorder.mark()
    bench.lan(up=False)
    bench.recorder.wait_for_signal(DOWN, since=since, timeout_s=2)
    assert DOWN in bench.recorder.run(bench.recorder.sources[1].dump())
    bench.lan(up=True)
    bench.recorder.wait_for_signal(UP, since=since, timeout_s=2)
    assert bench.recorder.evidence(since=since, reach="down") == []
    assert DOWN not in bench.recorder.run(bench.recorder.sources[1].dump())


def test_a_dump_holds_every_device_that_was_told(bench):
    settled(bench)
    for source in bench.recorder.sources:
        macs = {one.mac for one in bench.recorder.run(source.dump())}
        assert macs == {bench.who("d1")[0], bench.who("d2")[0]}


def test_a_device_that_does_not_answer_is_down(bench):
    """Unplugged, so that nothing answers: the kernel says FAILED, once it is asked."""
    ip = settled(bench)
    mac, _port = bench.who("d1")
    bench.unplug("d1")
    bench.recorder.wait_for(source="neighbours", mac=mac, reach="down", gone=True)
    since = bench.recorder.mark()
    bench.forget_neighbours()
    bench.recorder.run(bench.recorder.sources[1].poke(ip=ip, mac=mac))
    bench.recorder.wait_for(since=since, source="neighbours", mac=mac, reach="down", gone=False, timeout_s=12)


def test_a_poke_of_a_stranger_is_harmless(bench):
    settled(bench)
    for source in bench.recorder.sources:
        bench.recorder.run(source.poke(ip="10.77.3.9", mac=None))
        bench.recorder.run(source.poke(ip="fe80::1", mac="02:00:00:00:00:99"))
