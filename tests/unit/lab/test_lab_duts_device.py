"""The lab's DUTs speak as real ones do: what they send is what the Local Registry's own parsers understand."""

import pytest

from dmpd.lab.duts.device import DIAL_TARGET, MDX_TARGET, esn_of, is_esn, new_device, random_mac
from dmpd.local_registry.sources.dial_description import parse_app, parse_description
from dmpd.local_registry.sources.oui import is_local
from dmpd.local_registry.sources.ssdp_message import parse, search

IP, MAC = "10.77.1.4", "00:00:5e:00:53:02"


@pytest.fixture
def device():
    return new_device(2, MAC)


def heard(datagrams):
    return [parse(datagram) for datagram in datagrams]


def test_a_search_for_mdx_is_answered_with_the_esn(device):
    (said,) = heard(device.answers(search(MDX_TARGET, host="10.77.1.4", wait_s=None), IP))
    assert (said.kind, said.esn, said.name) == ("reply", esn_of(2, 0), "Cirrus TV 2")


def test_a_search_for_dial_is_answered_with_a_description_and_how_to_wake_it(device):
    (said,) = heard(device.answers(search(DIAL_TARGET, host="239.255.255.250", wait_s=1), IP))
    assert said.location == f"http://{IP}:8008/dd.xml"
    assert (said.wakeup.mac, said.wakeup.timeout_s) == (MAC, 10)
    page = device.page("GET", "/dd.xml", IP)
    assert dict(page.headers)["Application-URL"] == f"http://{IP}:8008/apps"
    found = parse_description(page.body)
    assert (found.name, found.manufacturer, found.model) == ("Cirrus TV 2", "Cirrus", "C2")


def test_only_every_second_one_can_be_woken():
    (said,) = heard(new_device(3, MAC).answers(search(DIAL_TARGET, host=IP, wait_s=None), IP))
    assert said.wakeup is None


@pytest.mark.parametrize("datagram", [b"", b"NOTIFY * HTTP/1.1\r\n\r\n", search("upnp:rootdevice", host=IP, wait_s=1)])
def test_what_is_not_for_it_gets_no_answer(device, datagram):
    assert device.answers(datagram, IP) == []


def test_asleep_it_answers_nothing_and_its_goodbye_names_every_service(device):
    said = heard(device.announcements(IP, alive=False))
    assert [one.kind for one in said] == ["byebye", "byebye"]
    device.asleep = True
    assert device.answers(search(MDX_TARGET, host=IP, wait_s=None), IP) == []


def test_what_it_announces_is_what_it_answers(device):
    for target, said in zip((MDX_TARGET, DIAL_TARGET), heard(device.announcements(IP, alive=True)), strict=True):
        (answer,) = heard(device.answers(search(target, host=IP, wait_s=None), IP))
        assert (said.kind, said.esn, said.uuid, said.location) == ("alive", answer.esn, answer.uuid, answer.location)


def test_an_app_is_launched_and_stopped_and_each_time_is_counted(device):
    def state():
        return parse_app(device.page("GET", "/apps/Netflix?clientDialVer=2.1", IP).body).state

    assert state() == "stopped"
    launched = device.page("POST", "/apps/Netflix", IP)
    assert (launched.status, dict(launched.headers)["LOCATION"]) == (
        "201 Created",
        f"http://{IP}:8008/apps/Netflix/run",
    )
    assert state() == "running"
    assert device.page("DELETE", "/apps/Netflix/run", IP).status == "200 OK"
    assert state() == "stopped"
    assert device.page("DELETE", "/apps/Netflix/run", IP).status == "404 Not Found"
    assert (device.apps["Netflix"].launches, device.apps["Netflix"].stops) == (1, 1)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", "404 Not Found"),
        ("GET", "/apps/Solitaire", "404 Not Found"),
        ("DELETE", "/apps/Netflix", "405 Method Not Allowed"),
        ("POST", "/dd.xml", "404 Not Found"),
    ],
)
def test_what_it_has_not_is_said_so(device, method, path, status):
    assert device.page(method, path, IP).status == status


def test_an_answer_is_one_http_message(device):
    head, body = device.page("GET", "/dd.xml", IP).encode().split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_magic_packet_wakes_whom_it_names(device):
    magic = b"\xff" * 6 + bytes.fromhex(MAC.replace(":", "")) * 16
    assert device.is_woken_by(magic)
    assert device.is_woken_by(b"before" + magic + b"password")
    assert not device.is_woken_by(magic[:-1])
    assert not new_device(3, "00:00:5e:00:53:03").is_woken_by(magic)


def test_made_up_macs_differ_and_say_that_they_are():
    macs = {random_mac(number, generation) for number in range(1, 251) for generation in range(1, 400)}
    assert len(macs) == 250 * 399
    assert all(is_local(mac) for mac in macs)


@pytest.mark.parametrize("esn", [esn_of(250, 9999), "AB", "ABCD", "no space", "ü123", "A" * 128, "A" * 129, ""])
def test_what_is_an_esn_here_is_one_to_the_local_registry(device, esn):
    device.esn = esn
    datagrams = device.answers(search(MDX_TARGET, host=IP, wait_s=None), IP)
    (said,) = heard(datagrams)
    assert is_esn(esn) == (said is not None and said.esn == esn)
