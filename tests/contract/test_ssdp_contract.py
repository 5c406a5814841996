"""What the SSDP source does, on sockets in a LAN of namespaces and on its twin in memory alike."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from dmpd.local_registry.sources.memory import MemoryLan
from dmpd.local_registry.sources.memory_ssdp import MemoryEther, MemoryResponder
from dmpd.local_registry.sources.neighbours import NeighbourSource
from dmpd.local_registry.sources.ssdp import SsdpSource
from dmpd.local_registry.sources.ssdp_book import BYEBYE_WAIT_S
from dmpd.local_registry.sources.ssdp_ether import LanEther
from dmpd.local_registry.sources.ssdp_message import DIAL_TARGET, MDX_TARGETS
from tests.support.lan import Recorder, running_lan
from tests.support.ssdp_device import (
    APP,
    APP_PATH,
    HTTP_PORT,
    PAGE_PATH,
    SsdpDevice,
    description,
    dial_reply,
    mdx_reply,
    notify,
    page,
)

MDX = MDX_TARGETS[0]
IPS = {"d1": "10.77.1.1", "d2": "10.77.1.2"}
ROUTER = "10.77.0.1"


class MemoryBench:
    """A LAN with d1 and d2, plugged in, whose neighbours (0) and SSDP (1) are being recorded."""

    def make(self):
        self._lan = MemoryLan()
        self._ether = MemoryEther(self._lan)
        self._by_name = {}
        for number, (name, ip) in enumerate(IPS.items(), start=1):
            device = self._lan.add(f"02:00:00:77:00:0{number}", ip=ip, hostname=name, port=f"lan{number}")
            self._by_name[name] = MemoryResponder(device=device, datagrams=[])
            self._ether.responders.append(self._by_name[name])
        return [self._lan.neighbours, self._ether.source]

    def mac(self, name: str) -> str:
        return self._by_name[name].device.mac

    def answers(self, name: str, *datagrams: bytes, pages: dict[str, bytes] | None = None) -> None:
        self._by_name[name].datagrams = list(datagrams)
        self._by_name[name].pages = pages or {}

    def say(self, name: str, datagram: bytes) -> None:
        self.recorder.call(lambda: self._ether.say(self._by_name[name].device, datagram))

    def fetched(self, name: str) -> list[str]:
        return self._by_name[name].fetched

    def plug(self, name: str, *, plugged: bool) -> None:
        device = self._by_name[name].device
        self.recorder.call(lambda: (self._lan.plug if plugged else self._lan.unplug)(device))


class NamespaceBench:
    def __init__(self, lan, devices: dict[str, SsdpDevice]) -> None:
        self._lan = lan
        self._devices = devices

    def make(self):
        neighbours = NeighbourSource("br-lan")
        return [neighbours, SsdpSource(LanEther("br-lan"), neighbours.mac_of)]

    def mac(self, name: str) -> str:
        return self._lan.lab.dut(name).mac

    def answers(self, name: str, *datagrams: bytes, pages: dict[str, bytes] | None = None) -> None:
        self._devices[name].datagrams = list(datagrams)
        self._devices[name].pages = dict(pages or {})

    def say(self, name: str, datagram: bytes) -> None:
        self._devices[name].say(datagram)

    def fetched(self, name: str) -> list[str]:
        return self._devices[name].fetched

    def plug(self, name: str, *, plugged: bool) -> None:
        (self._lan.lab.plug if plugged else self._lan.lab.unplug)(name)
        if plugged:
            # A static address comes back with the link, its neighbour on the router with the first frame.
            self._lan.in_dut(self._lan.lab.dut(name), "busybox", "arping", "-c", "1", "-w", "1", "-I", "eth0", ROUTER)


@contextmanager
def memory_bench() -> Iterator[MemoryBench]:
    bench = MemoryBench()
    with Recorder(bench.make) as bench.recorder:
        for name in IPS:
            bench.plug(name, plugged=True)
        yield bench


@contextmanager
def namespace_bench() -> Iterator[NamespaceBench]:
    with running_lan(devices=2) as lan, ExitStack() as stack:
        devices = {}
        for name, ip in IPS.items():
            dut = lan.lab.dut(name)
            lan.in_dut(dut, "ip", "address", "add", f"{ip}/22", "dev", "eth0")
            devices[name] = stack.enter_context(SsdpDevice(dut.namespace))
        bench = NamespaceBench(lan, devices)
        bench.recorder = stack.enter_context(Recorder(bench.make, namespace=lan.lab.router_namespace))
        yield bench


BENCHES: dict[str, Callable] = {"memory": memory_bench, "namespaces": namespace_bench}


@pytest.fixture(params=["memory", pytest.param("namespaces", marks=pytest.mark.namespaces)])
def bench(request):
    with BENCHES[request.param]() as bench:
        yield bench


def poke(bench, name: str) -> None:
    bench.recorder.run(bench.recorder.sources[1].poke(ip=IPS[name], mac=bench.mac(name)))


def introduced(bench, name: str = "d1", esn: str = "SIMTV-0001") -> None:
    bench.answers(name, mdx_reply(esn))
    bench.say(name, notify(MDX, esn, "ssdp:alive"))
    bench.recorder.wait_for(source="ssdp", mac=bench.mac(name), esn=esn)


def test_everybody_is_asked_at_the_start_and_tells_its_esn(bench):
    bench.answers("d1", mdx_reply("SIMTV-0001"))
    bench.answers("d2", mdx_reply("SIMTV-0002"))
    for name, esn in (("d1", "SIMTV-0001"), ("d2", "SIMTV-0002")):
        _at_s, said = bench.recorder.wait_for(source="ssdp", esn=esn)
        assert (said.mac, said.ip) == (bench.mac(name), IPS[name])
        assert (said.esn_source, said.reach, said.power) == ("mdx", "up", "on")


def test_a_poked_device_answers_for_itself(bench):
    introduced(bench)
    bench.answers("d1", mdx_reply("SIMTV-0009"))
    since = bench.recorder.mark()
    poke(bench, "d1")
    _at_s, said = bench.recorder.wait_for(since=since, source="ssdp", esn="SIMTV-0009")
    assert said.mac == bench.mac("d1")


def test_an_announcement_is_heard_without_asking(bench):
    bench.say("d2", notify(MDX, "SIMTV-0002", "ssdp:alive"))
    _at_s, said = bench.recorder.wait_for(source="ssdp", esn="SIMTV-0002")
    assert said.mac == bench.mac("d2")


def test_who_says_goodbye_and_is_silent_is_in_standby_until_it_speaks_again(bench):
    introduced(bench)
    bench.answers("d1")
    since = bench.recorder.mark()
    bench.say("d1", notify(MDX, "SIMTV-0001", "ssdp:byebye"))
    _at_s, said = bench.recorder.wait_for(since=since, source="ssdp", power="standby")
    assert (said.mac, said.reach, said.gone) == (bench.mac("d1"), None, False)
    assert bench.recorder.run(bench.recorder.sources[1].dump()) == []
    since = bench.recorder.mark()
    bench.say("d1", notify(MDX, "SIMTV-0001", "ssdp:alive"))
    bench.recorder.wait_for(since=since, source="ssdp", power="on", reach="up", esn="SIMTV-0001")


def test_who_says_goodbye_and_still_answers_stays(bench):
    introduced(bench)
    since = bench.recorder.mark()
    bench.say("d1", notify(MDX, "SIMTV-0001", "ssdp:byebye"))
    bench.say("d2", notify(MDX, "SIMTV-0002", "ssdp:alive"))
    bench.recorder.wait_for(since=since, source="ssdp", esn="SIMTV-0002")
    bench.answers("d2")
    bench.say("d2", notify(MDX, "SIMTV-0002", "ssdp:byebye"))
    bench.recorder.wait_for(since=since, mac=bench.mac("d2"), power="standby", timeout_s=BYEBYE_WAIT_S + 10)
    assert bench.recorder.evidence(since=since, mac=bench.mac("d1"), power="standby") == []


def test_a_description_and_an_app_are_told(bench):
    url = f"http://{IPS['d1']}:{HTTP_PORT}{PAGE_PATH}"
    pages = {PAGE_PATH: description(IPS["d1"], "A55"), APP_PATH: page(APP)}
    bench.answers("d1", mdx_reply("SIMTV-0001"), dial_reply(url), pages=pages)
    _at_s, said = bench.recorder.wait_for(source="ssdp", model="A55", esn="SIMTV-0001")
    assert (said.manufacturer, said.mac) == ("Aster", bench.mac("d1"))
    assert said.attributes == {"dial_app": b'{"name":"Netflix","state":"running","stoppable":true}'}
    assert bench.fetched("d1") == [PAGE_PATH, APP_PATH]


def test_a_description_elsewhere_is_not_fetched(bench):
    bench.answers("d2", pages={PAGE_PATH: description(IPS["d2"], "other")})
    bench.answers("d1", mdx_reply("SIMTV-0001"), dial_reply(f"http://{IPS['d2']}:{HTTP_PORT}{PAGE_PATH}"))
    bench.recorder.wait_for(source="ssdp", esn="SIMTV-0001")
    url = f"http://{IPS['d1']}:{HTTP_PORT}{PAGE_PATH}"
    bench.answers("d1", dial_reply(url), pages={PAGE_PATH: description(IPS["d1"], "own")})
    poke(bench, "d1")
    bench.recorder.wait_for(source="ssdp", model="own")
    assert bench.fetched("d2") == []


def test_a_dump_holds_all_that_speak_and_says_nothing_on_who_is_alive(bench):
    introduced(bench, "d1", "SIMTV-0001")
    introduced(bench, "d2", "SIMTV-0002")
    said = bench.recorder.run(bench.recorder.sources[1].dump())
    assert {one.esn for one in said} == {"SIMTV-0001", "SIMTV-0002"}
    assert {(one.reach, one.power) for one in said} == {(None, None)}


def test_a_poke_of_a_stranger_is_harmless(bench):
    introduced(bench)
    for ip in ("10.77.3.9", "fe80::1", "192.0.2.1", ROUTER, "10.77.3.255"):
        bench.recorder.run(bench.recorder.sources[1].poke(ip=ip, mac=None))


def test_who_is_unplugged_is_silent_and_speaks_again_when_back(bench):
    introduced(bench)
    bench.recorder.wait_for(source="neighbours", mac=bench.mac("d1"), reach="up")
    bench.plug("d1", plugged=False)
    bench.recorder.wait_for(source="neighbours", mac=bench.mac("d1"), reach="down", gone=True)
    since = bench.recorder.mark()
    poke(bench, "d1")
    bench.answers("d1", mdx_reply("SIMTV-0003"))
    bench.plug("d1", plugged=True)
    bench.recorder.wait_for(since=since, source="neighbours", mac=bench.mac("d1"), reach="up")
    assert bench.recorder.evidence(since=since, source="ssdp", power="standby") == []
    poke(bench, "d1")
    bench.recorder.wait_for(since=since, source="ssdp", esn="SIMTV-0003")


def test_dial_says_nothing_of_an_esn(bench):
    bench.say("d1", notify(DIAL_TARGET, "SIMTV-0001", "ssdp:alive"))
    _at_s, said = bench.recorder.wait_for(source="ssdp", mac=bench.mac("d1"))
    assert (said.esn, said.esn_source) == (None, None)
