"""What may be fetched, and how often."""

import asyncio
import ipaddress

import pytest

from dmpd.local_registry.sources import describer, lan_addresses
from dmpd.local_registry.sources.describer import ALL_BURST, DEVICE_BURST, REFRESH_S, WAITING_MAX, Describer, may_fetch
from dmpd.local_registry.sources.http_answer import Answer, Location
from dmpd.local_registry.sources.lan_addresses import LanAddresses
from tests.support.aio import async_test

IP, MAC = "10.77.1.9", "3c:12:aa:00:00:01"
URL = f"http://{IP}:8008/dd.xml"
PAGE = b"<root><device><modelName>M</modelName></device></root>"
APP = b"<service><name>Netflix</name><state>stopped</state></service>"


class Around:
    addresses = LanAddresses((ipaddress.IPv4Network("10.77.0.0/22"),), frozenset({"10.77.0.1", "192.0.2.1"}))

    def __init__(self) -> None:
        self.macs = {IP: MAC}

    def mac_of(self, ip: str) -> str | None:
        return self.macs.get(ip)


class Rig:
    def __init__(self) -> None:
        self.around = Around()
        self.now_s = 0.0
        self.asked: list[Location] = []
        self.told: list[describer.Found] = []
        self.answers: dict[str, Answer | None] = {}
        self.at_once = self.most_at_once = 0
        self.describer = Describer(self.fetch, self.around, tell=self.told.append, now_s=lambda: self.now_s)

    async def fetch(self, location: Location) -> Answer | None:
        self.asked.append(location)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return self.answers.get(location.path, Answer(status=200, body=PAGE))

    async def settle(self) -> None:
        running = asyncio.create_task(self.describer.run())
        for _turn in range(1000):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def wish(self, url: str = URL, *, ip: str = IP, mac: str = MAC) -> None:
        self.describer.wish(url, ip=ip, mac=mac, from_dial=True)


@pytest.mark.parametrize(
    ("url", "ip", "mac", "why"),
    [
        ("http://10.77.1.10/", IP, MAC, "another host"),
        ("http://10.77.0.1/", IP, MAC, "the router"),
        ("http://10.77.0.1/", "10.77.0.1", MAC, "the router, in its own name"),
        ("http://192.0.2.1/", "192.0.2.1", MAC, "the router's uplink"),
        ("http://192.0.2.9/", "192.0.2.9", MAC, "outside of the LAN"),
        ("http://10.77.3.255/", "10.77.3.255", MAC, "everybody"),
        ("http://10.77.0.0/", "10.77.0.0", MAC, "nobody"),
        (URL, IP, "3c:12:aa:00:00:02", "another MAC"),
        ("http://10.77.1.8/", "10.77.1.8", MAC, "no MAC"),
        ("https://10.77.1.9/", IP, MAC, "not plain"),
    ],
)
def test_what_may_not_be_fetched(url, ip, mac, why):
    around = Around()
    around.macs |= {"10.77.0.1": MAC, "192.0.2.1": MAC, "192.0.2.9": MAC, "10.77.3.255": MAC, "10.77.0.0": MAC}
    assert may_fetch(url, ip=ip, mac=mac, around=around) is None, why
    assert may_fetch(URL, ip=IP, mac=MAC, around=around) == Location(ip=IP, port=8008, path="/dd.xml")


@async_test
async def test_a_description_and_its_app_are_told():
    rig = Rig()
    headers = {"application-url": f"http://{IP}:8008/apps/"}
    rig.answers["/dd.xml"] = Answer(status=200, headers=headers, body=PAGE)
    rig.answers["/apps/Netflix?clientDialVer=2.1"] = Answer(status=200, body=APP)
    rig.wish()
    await rig.settle()
    (found,) = rig.told
    assert (found.mac, found.description.model, found.app.state, found.from_dial) == (MAC, "M", "stopped", True)


@pytest.mark.parametrize("base", ["http://10.77.1.10/apps", "http://10.77.0.1/apps", "http://router/apps", "/apps"])
@async_test
async def test_the_app_is_asked_of_the_device_alone(base):
    rig = Rig()
    rig.answers["/dd.xml"] = Answer(status=200, headers={"application-url": base}, body=PAGE)
    rig.wish()
    await rig.settle()
    assert [location.path for location in rig.asked] == ["/dd.xml"]
    assert rig.told[0].app is None


@pytest.mark.parametrize("status", [301, 302, 307, 404, 500])
@async_test
async def test_a_redirect_is_no_answer(status):
    rig = Rig()
    headers = {"location": f"http://{IP}/other"}
    rig.answers["/dd.xml"] = Answer(status=status, headers=headers, body=PAGE)
    rig.wish()
    await rig.settle()
    assert (len(rig.asked), rig.told) == (1, [])


@async_test
async def test_an_answer_counts_only_while_the_mac_is_still_the_same():
    rig = Rig()

    async def fetch(location: Location) -> Answer:
        rig.around.macs[IP] = "3c:12:aa:00:00:02"
        return Answer(status=200, body=PAGE)

    rig.describer._fetch = fetch
    rig.wish()
    await rig.settle()
    assert rig.told == []


@async_test
async def test_what_was_read_is_read_again_only_after_a_while():
    rig = Rig()
    for now_s in (0.0, 1.0, 61.0, REFRESH_S - 1):
        rig.now_s = now_s
        rig.wish()
        await rig.settle()
    assert len(rig.asked) == 1
    rig.now_s = REFRESH_S + 1
    rig.wish()
    await rig.settle()
    assert len(rig.asked) == 2
    rig.describer.forget(MAC)
    rig.wish()
    await rig.settle()
    assert len(rig.asked) == 3


@async_test
async def test_ever_new_urls_of_one_device_are_asked_for_seldom():
    rig = Rig()
    for number in range(1000):
        rig.now_s = number / 100
        rig.wish(f"{URL}?{number}")
        if number % 100 == 0:
            await rig.settle()
    await rig.settle()
    assert len(rig.asked) <= DEVICE_BURST + 1


@async_test
async def test_many_devices_wait_in_a_bounded_line_and_few_are_asked_at_once():
    rig = Rig()
    for number in range(1, 201):
        ip, mac = f"10.77.2.{number}", f"3c:12:aa:00:01:{number:02x}"
        rig.around.macs[ip] = mac
        rig.wish(f"http://{ip}/", ip=ip, mac=mac)
    assert rig.describer._wishes.qsize() <= min(WAITING_MAX, ALL_BURST)
    await rig.settle()
    assert rig.most_at_once == describer.AT_ONCE
    assert len(rig.told) == ALL_BURST


def test_our_own_addresses_are_read_of_the_kernel():
    found = lan_addresses.read("lo")
    assert "127.0.0.1" in found.own
    assert ipaddress.IPv4Network("127.0.0.0/8") in found.networks
    assert lan_addresses.read("none").networks == ()
    assert found.is_device("127.0.0.2")
    assert not any(found.is_device(ip) for ip in ("127.0.0.1", "10.0.0.1", "x", "::1"))
