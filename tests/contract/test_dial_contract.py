"""Apps by DIAL and magic packets: on sockets in a LAN of namespaces, and on the twin in memory."""

import socket

import pytest

from dmpd.lab.duts.device import new_device
from dmpd.lab.lan_tools import in_namespace
from dmpd.local_registry.device_control import AppState, DeviceControlError, Target
from dmpd.local_registry.sources.dial import Dial
from dmpd.local_registry.sources.lan_control import WAKE_PORT, LanControl, magic_packet
from tests.contract.test_ssdp_contract import BENCHES, IPS, introduced
from tests.support.lan import running_lan
from tests.support.ssdp_device import HTTP_PORT, PAGE_PATH, description, dial_reply, page

STATE = "/apps/Netflix?clientDialVer=2.1"
RUNNING = (
    b"<service><name>Netflix</name><options allowStop='true'/><state>running</state><link rel='run' href='run'/>"
    b"</service>"
)
STOPPED = b"<service><name>Netflix</name><options allowStop='true'/><state>stopped</state></service>"


@pytest.fixture(params=["memory", pytest.param("namespaces", marks=pytest.mark.namespaces)])
def bench(request):
    with BENCHES[request.param]() as bench:
        yield bench


def speak(bench, pages, *, at: str = "d1", base: str | None = None) -> None:
    url = f"http://{IPS[at]}:{HTTP_PORT}{PAGE_PATH}"
    about = description(IPS[at], "A55") if base is None else page(b"<root/>", f"Application-URL: {base}")
    bench.answers("d1", dial_reply(url), pages={PAGE_PATH: about, **pages})


def control(bench) -> Dial:
    source = bench.recorder.sources[1]
    return Dial(source, source._ether.fetch)


def target(bench) -> Target:
    bench.recorder.wait_for(mac=bench.mac("d1"), ip=IPS["d1"], reach="up")
    return Target(IPS["d1"], (bench.mac("d1"),))


def asked(bench, method: str) -> list[str]:
    return [one for one in bench.fetched("d1") if one.startswith(method)]


def test_an_app_is_asked_for(bench):
    speak(bench, {STATE: page(STOPPED)})
    found = bench.recorder.run(control(bench).state(target(bench), "Netflix"))
    assert found == AppState("Netflix", "stopped", stoppable=True)


def test_an_app_is_launched_once_with_its_payload(bench):
    speak(bench, {"POST /apps/Netflix": page(b"", "Content-Length: 0", status="201 Created")})
    bench.recorder.run(control(bench).launch(target(bench), "Netflix", "märz=1"))
    assert asked(bench, "POST") == ["POST /apps/Netflix"]


def test_a_running_app_is_stopped_by_its_instance_and_a_stopped_one_is_not_asked(bench):
    speak(bench, {STATE: page(RUNNING), "DELETE /apps/Netflix/run": page(b"", "Content-Length: 0")})
    assert bench.recorder.run(control(bench).stop(target(bench), "Netflix")) is True
    assert asked(bench, "DELETE") == ["DELETE /apps/Netflix/run"]
    speak(bench, {STATE: page(STOPPED)})
    assert bench.recorder.run(control(bench).stop(target(bench), "Netflix")) is False
    assert asked(bench, "DELETE") == ["DELETE /apps/Netflix/run"]


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ({}, "has no app Netflix"),
        ({"POST /apps/Netflix": page(b"", status="503 Service Unavailable")}, "answered 503"),
        ({"POST /apps/Netflix": b"nonsense"}, "not known whether Netflix was launched"),
    ],
)
def test_a_launch_that_did_not_succeed_says_why_and_is_not_tried_again(bench, pages, said):
    speak(bench, pages)
    if bench.__class__.__name__ == "MemoryBench" and not pages:
        speak(bench, {"POST /apps/Netflix": page(b"", status="404 Not Found")})
    with pytest.raises(DeviceControlError, match=said):
        bench.recorder.run(control(bench).launch(target(bench), "Netflix", ""))
    assert asked(bench, "POST") == ["POST /apps/Netflix"]


def test_apps_at_another_address_are_not_asked_for(bench):
    speak(bench, {}, base=f"http://{IPS['d2']}:{HTTP_PORT}/apps")
    with pytest.raises(DeviceControlError, match="another address"):
        bench.recorder.run(control(bench).launch(target(bench), "Netflix", ""))
    assert bench.fetched("d2") == []


def test_a_way_to_stop_that_leads_elsewhere_is_not_taken(bench):
    speak(bench, {STATE: page(RUNNING.replace(b"href='run'", b"href='../../x'"))})
    with pytest.raises(DeviceControlError, match="does not say how"):
        bench.recorder.run(control(bench).stop(target(bench), "Netflix"))
    assert asked(bench, "DELETE") == []


def test_a_device_that_has_another_mac_now_is_not_asked(bench):
    speak(bench, {STATE: page(STOPPED)})
    there = target(bench)
    with pytest.raises(DeviceControlError, match="not on the LAN"):
        bench.recorder.run(control(bench).state(there._replace(macs=("02:00:00:00:00:99",)), "YouTube"))
    with pytest.raises(DeviceControlError, match="not on the LAN"):
        bench.recorder.run(control(bench).state(there._replace(ip=None), "YouTube"))
    assert not any("YouTube" in path for path in bench.fetched("d1"))


def test_a_device_without_dial_is_asked_and_then_given_up(bench):
    introduced(bench)
    with pytest.raises(DeviceControlError, match="announces no DIAL"):
        bench.recorder.run(control(bench).state(target(bench), "Netflix"))


def test_a_magic_packet_is_what_a_dut_wakes_by():
    device = new_device(1, "02:00:00:77:00:01")
    assert device.is_woken_by(magic_packet("02:00:00:77:00:01"))
    assert not device.is_woken_by(magic_packet("02:00:00:77:00:02"))


@pytest.mark.namespaces
def test_a_magic_packet_reaches_a_device_that_answers_no_arp():
    with running_lan(devices=1) as lan:
        dut = lan.lab.dut("d1")
        lan.lab.plug("d1")
        for words in (("link", "set", "eth0", "up"), ("link", "set", "eth0", "arp", "off")):
            lan.in_dut(dut, "ip", *words)

        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.settimeout(10)
            sock.bind(("", WAKE_PORT))
            return sock

        def wake() -> None:
            with pytest.raises(StopIteration):
                LanControl("br-lan", None).wake([dut.mac]).send(None)

        with in_namespace(dut.namespace, listen) as heard:
            in_namespace(lan.lab.router_namespace, wake)
            assert heard.recv(1000) == magic_packet(dut.mac)
