"""SSDP on a real LAN: how soon an ESN is known after DHCP, and everything that a hostile device can do."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dmpd.local_registry.sources import metrics
from dmpd.local_registry.sources.leases import LeaseSource
from dmpd.local_registry.sources.neighbours import NeighbourSource
from dmpd.local_registry.sources.ssdp import SsdpSource
from dmpd.local_registry.sources.ssdp_ether import FETCH_TIMEOUT_S, GROUP, PORT, LanEther
from dmpd.local_registry.sources.ssdp_message import MDX_TARGETS
from tests.support.lan import Recorder, running_lan
from tests.support.platform import until
from tests.support.ssdp_device import (
    HTTP_PORT,
    PAGE_PATH,
    SsdpDevice,
    description,
    dial_reply,
    flood,
    mdx_reply,
    notify,
    page,
)

pytestmark = pytest.mark.namespaces

IPS = {"d1": "10.77.1.1", "d2": "10.77.1.2"}
ROUTER = "10.77.0.1"


class Lan:
    """d1 and d2 with fixed addresses, a web server on the router, and the sources: neighbours, SSDP."""

    def __init__(self, stack: ExitStack) -> None:
        self.running = stack.enter_context(running_lan(devices=2))
        self.lab = self.running.lab
        for name, ip in IPS.items():
            self.running.in_dut(self.lab.dut(name), "ip", "address", "add", f"{ip}/22", "dev", "eth0")
        self.devices = {name: stack.enter_context(SsdpDevice(self.lab.dut(name).namespace)) for name in IPS}
        self.router = stack.enter_context(SsdpDevice(self.lab.router_namespace, "br-lan"))
        self.recorder = stack.enter_context(Recorder(self.make, namespace=self.lab.router_namespace))

    def make(self):
        neighbours = NeighbourSource("br-lan")
        self.ether = LanEther("br-lan")
        self.source = SsdpSource(self.ether, neighbours.mac_of)
        return [neighbours, self.source]

    def mac(self, name: str) -> str:
        return self.lab.dut(name).mac

    def poke(self, name: str) -> None:
        self.recorder.run(self.source.poke(ip=IPS[name], mac=self.mac(name)))

    def introduce(self, name: str, esn: str) -> None:
        self.devices[name].datagrams = [mdx_reply(esn)]
        self.devices[name].say(notify(MDX_TARGETS[0], esn, "ssdp:alive"))
        self.recorder.wait_for(source="ssdp", mac=self.mac(name), esn=esn)


@pytest.fixture
def lan():
    with ExitStack() as stack:
        yield Lan(stack)


def url_of(ip: str, path: str = PAGE_PATH) -> str:
    return f"http://{ip}:{HTTP_PORT}{path}"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def refused(reason: str) -> float:
    return metrics.urls_refused.labels(reason)._value.get()


def over_rate() -> float:
    return metrics.ssdp_datagrams.labels("over_rate")._value.get()


def described(outcome: str) -> float:
    return metrics.descriptions.labels(outcome)._value.get()


def test_the_esn_of_a_new_device_is_known_soon_after_its_lease(record_property):
    """The device asks for an address; when its lease is told, it is asked; its ESN comes within half a second."""
    with ExitStack() as stack:
        lan = stack.enter_context(running_lan(devices=6))
        lan.start_dnsmasq()

        def make():
            neighbours = NeighbourSource("br-lan")
            ssdp = SsdpSource(LanEther("br-lan"), neighbours.mac_of)
            return [LeaseSource(lan.lease_file), neighbours, ssdp]

        recorder = stack.enter_context(Recorder(make, namespace=lan.lab.router_namespace))
        took_s = []
        for dut in lan.lab.duts():
            device = stack.enter_context(SsdpDevice(dut.namespace))
            device.datagrams = [mdx_reply(f"SIMTV-{dut.name}")]
            lan.start_dut(dut)
            leased_s, lease = recorder.wait_for(source="leases", mac=dut.mac)
            assert lease.arrived
            recorder.run(recorder.sources[2].poke(ip=lease.ip, mac=dut.mac))
            told_s, said = recorder.wait_for(source="ssdp", mac=dut.mac, esn=f"SIMTV-{dut.name}")
            assert said.ip == lease.ip
            took_s.append(told_s - leased_s)
    print("lease told → ESN told, ms:", [round(one * 1000, 1) for one in took_s])
    assert max(took_s) < 2


def test_a_known_neighbours_answer_comes_in_milliseconds(lan):
    lan.introduce("d1", "SIMTV-0000")
    took_s = []
    for number in range(1, 6):
        lan.devices["d1"].datagrams = [mdx_reply(f"SIMTV-{number:04d}")]
        begin_s = time.monotonic()
        lan.poke("d1")
        took_s.append(lan.recorder.wait_for(esn=f"SIMTV-{number:04d}")[0] - begin_s)
    print("M-SEARCH → evidence, ms:", [round(one * 1000, 2) for one in took_s])
    assert min(took_s) < 0.2


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (url_of(IPS["d2"]), "other_host"),
        (url_of(ROUTER), "other_host"),
        ("http://127.0.0.1:8008/dd.xml", "other_host"),
        ("http://localhost:8008/dd.xml", "form"),
        ("file:///etc/hostname", "form"),
    ],
)
def test_a_location_elsewhere_is_refused(lan, target, reason):
    before = refused(reason)
    lan.devices["d1"].datagrams = [mdx_reply("SIMTV-0001"), dial_reply(target)]
    lan.recorder.wait_for(source="ssdp", mac=lan.mac("d1"), esn="SIMTV-0001")
    until(lambda: refused(reason) > before, f"refused as {reason}")
    assert lan.devices["d2"].fetched == lan.router.fetched == lan.devices["d1"].fetched == []


BOMB = b'<!DOCTYPE r [<!ENTITY a "' + b"a" * 1000 + b'"><!ENTITY b "' + b"&a;" * 50 + b'">]>'
BOMB += b"<root><device><modelName>&b;</modelName></device></root>"
PAGES = {
    "a redirect to another device": page(b"", f"Location: {url_of(IPS['d2'])}", status="302 Found"),
    "a redirect to the router": page(b"", f"Location: {url_of(ROUTER)}", status="301 Moved Permanently"),
    "a redirect to itself": page(b"", f"Location: {url_of(IPS['d1'], '/other')}", status="307 Temporary Redirect"),
    "1 MB": page(b"<root><device><modelName>M</modelName></device>" + b" " * (1 << 20) + b"</root>"),
    "1 MB of head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n<root/>",
    "an XML bomb": page(BOMB),
    "a length that lies": page(b"<root/>", "Content-Length: 999999999"),
    "no HTTP": b"\x00" * 1000,
    "nothing": b"",
    "never finished": None,
}


@pytest.mark.parametrize("what", PAGES)
def test_a_hostile_description_is_read_within_bounds_and_harms_nobody(lan, what):
    before = described("failed")
    lan.devices["d1"].pages = {PAGE_PATH: PAGES[what], "/other": description(IPS["d1"], "redirected")}
    lan.devices["d1"].datagrams = [mdx_reply("SIMTV-0001"), dial_reply(url_of(IPS["d1"]))]
    lan.recorder.wait_for(source="ssdp", mac=lan.mac("d1"), esn="SIMTV-0001")
    until(lambda: lan.devices["d1"].fetched == [PAGE_PATH], "fetched once")
    lan.devices["d2"].pages = {PAGE_PATH: description(IPS["d2"], "honest")}
    lan.devices["d2"].datagrams = [dial_reply(url_of(IPS["d2"]))]
    lan.poke("d2")
    lan.recorder.wait_for(source="ssdp", mac=lan.mac("d2"), model="honest")
    until(lambda: described("failed") > before, "given up", timeout_s=FETCH_TIMEOUT_S + 10)
    assert lan.devices["d1"].fetched == [PAGE_PATH]
    assert lan.router.fetched == []
    assert [one.model for one in lan.recorder.evidence(mac=lan.mac("d1")) if one.model] == []


@pytest.mark.parametrize("how", ["its own address", "made-up addresses", "announcements"])
def test_ten_thousand_datagrams_a_second_leave_room_for_the_others(lan, how):
    lan.introduce("d2", "SIMTV-0002")
    lan.introduce("d1", "SIMTV-0001")
    since = lan.recorder.mark()
    port = lan.recorder.call(lambda: lan.ether._sockets[0].getsockname()[1])
    datagram, to = mdx_reply("FLOOD-########"), (ROUTER, port)
    if how == "announcements":
        datagram, to = notify(MDX_TARGETS[0], "FLOOD-########", "ssdp:alive"), (GROUP, PORT)
    begin_s, begin_cpu_s = time.monotonic(), lan.recorder.call(time.thread_time)
    namespace = lan.lab.dut("d1").namespace
    spoofed = how == "made-up addresses"
    answered_s = []
    dropped_before = over_rate()
    resident_before = resident_bytes()
    with flood(namespace, datagram, per_s=10_000, seconds=4.0, spoofed=spoofed, to=to) as child:
        number = 0
        while child.poll() is None:
            number += 1
            lan.devices["d2"].datagrams = [mdx_reply(f"SIMTV-1{number:03d}")]
            asked_s = time.monotonic()
            lan.poke("d2")
            until(lambda: lan.devices["d2"].searched > 0, "d2 is asked")
            if number <= 4:  # more news of one device in so short a time is not told
                at_s = lan.recorder.wait_for(source="ssdp", mac=lan.mac("d2"), esn=f"SIMTV-1{number:03d}")[0]
                answered_s.append(at_s - asked_s)
            time.sleep(0.2)
        rate_per_s = float(child.stdout.read())
    cpu = (lan.recorder.call(time.thread_time) - begin_cpu_s) / (time.monotonic() - begin_s)
    said = lan.recorder.evidence(since=since, source="ssdp", mac=lan.mac("d1"))
    slowest_ms = round(max(answered_s) * 1000, 1)
    print(f"flood from {how}: {rate_per_s:.0f}/s, CPU {cpu:.0%}, {len(said)} told, others within {slowest_ms} ms")
    assert rate_per_s > 2_000
    assert len(said) <= 10
    assert len(answered_s) >= 3
    assert max(answered_s) < 3
    assert len(lan.source._held) <= 256
    assert len(lan.source._gate._senders) <= 2048
    assert over_rate() - dropped_before > 0.4 * 4.0 * rate_per_s
    assert cpu < 0.6
    assert resident_bytes() - resident_before < 16 << 20


def test_the_source_comes_back_with_its_interface(lan):
    lan.introduce("d1", "SIMTV-0001")
    # The same MAC again: the devices' own neighbour entries are not what is tested here.
    mac = lan.running.router("cat", "/sys/class/net/br-lan/address").strip()
    lan.running.router("ip", "link", "delete", "br-lan")
    until(lambda: not lan.recorder.call(lambda: lan.source._open) or broken(lan), "closed")
    lan.running.router("ip", "link", "add", "br-lan", "address", mac, "type", "bridge")
    lan.running.router("ip", "address", "add", f"{ROUTER}/22", "dev", "br-lan")
    lan.running.router("ip", "link", "set", "br-lan", "up")
    for name in IPS:
        lan.running.router("ip", "link", "set", lan.lab.dut(name).port, "master", "br-lan")
    lan.devices["d1"].datagrams = [mdx_reply("SIMTV-0002")]
    lan.recorder.wait_for(source="ssdp", mac=lan.mac("d1"), esn="SIMTV-0002")


def broken(lan) -> bool:
    """Let the source search now, so that it notices; the next search may be a minute away."""
    lan.recorder.call(lambda: setattr(lan.source, "_searches_at_s", [0.0]))
    return False
