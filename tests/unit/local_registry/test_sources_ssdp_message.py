"""SSDP datagrams as real devices send them, and as nobody should."""

import base64

import pytest

from dmpd.local_registry.sources.ssdp_message import (
    DATAGRAM_BYTES_MAX,
    DIAL_TARGET,
    MAX_AGE_DEFAULT_S,
    MAX_AGE_MAX_S,
    MAX_AGE_MIN_S,
    MDX_TARGETS,
    SsdpMessage,
    Wakeup,
    parse,
    search,
)

ESN = "NFANDROID2-PRV-SHIELDANDROIDTV-NVIDISHIELD=ANDROID=TV-12345"
MDX = MDX_TARGETS[0]


def datagram(start: str = "HTTP/1.1 200 OK", /, **headers: str) -> bytes:
    lines = [start, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", errors="surrogateescape")


def mdx(**headers: str) -> SsdpMessage | None:
    return parse(datagram(**{"ST": MDX, "USN": f"uuid:{ESN}::{MDX}", **headers}))


def test_the_reply_of_a_tv_gives_its_esn_and_name():
    name = base64.b64encode("Küche TV".encode()).decode()
    found = mdx(
        LOCATION="http://10.77.1.9:9080", X_Friendly_Name=name, CACHE_CONTROL="max-age=900", X_User_Agent="NRDP MDX"
    )
    assert found == SsdpMessage(
        kind="reply", uuid=ESN, target=MDX, max_age_s=900.0, esn=ESN, name="Küche TV", location="http://10.77.1.9:9080"
    )


@pytest.mark.parametrize("target", MDX_TARGETS)
def test_both_versions_of_the_target_name_an_esn(target):
    assert parse(datagram(ST=target, USN=f"uuid:{ESN}::{target}")).esn == ESN
    assert parse(datagram(ST=target, USN=f"uuid:{ESN}")).esn == ESN


def test_a_usn_of_another_service_names_no_esn():
    found = parse(datagram(ST=MDX, USN=f"uuid:{ESN}::upnp:rootdevice"))
    assert (found.uuid, found.esn) == (ESN, None)
    assert parse(datagram(ST=DIAL_TARGET, USN=f"uuid:{ESN}::{MDX}")).esn is None
    assert parse(datagram(ST="upnp:rootdevice", USN=f"uuid:{ESN}::upnp:rootdevice")).esn is None


def test_announcements_say_who_comes_and_goes():
    start = "NOTIFY * HTTP/1.1"
    alive = parse(datagram(start, NTS="ssdp:alive", NT=MDX, USN=f"uuid:{ESN}::{MDX}"))
    assert (alive.kind, alive.esn) == ("alive", ESN)
    assert parse(datagram(start, NTS="ssdp:byebye", NT=MDX, USN=f"uuid:{ESN}::{MDX}")).kind == "byebye"
    assert parse(datagram(start, NTS="ssdp:update", NT=MDX, USN=f"uuid:{ESN}::{MDX}")).kind == "alive"
    assert parse(datagram(start, NTS="ssdp:other", NT=MDX, USN=f"uuid:{ESN}::{MDX}")) is None


@pytest.mark.parametrize(
    ("value", "wakeup"),
    [
        ("MAC=10:DD:B1:C9:00:E4;Timeout=60", Wakeup(mac="10:dd:b1:c9:00:e4", timeout_s=60)),
        ("Timeout=10; MAC=10-dd-b1-c9-00-e4", Wakeup(mac="10:dd:b1:c9:00:e4", timeout_s=10)),
        ("MAC=10:dd:b1:c9:00:e4", Wakeup(mac="10:dd:b1:c9:00:e4")),
        ("MAC=10:dd:b1:c9:00:e4;Timeout=999999999", Wakeup(mac="10:dd:b1:c9:00:e4")),
        ("MAC=ff:ff:ff:ff:ff:ff;Timeout=60", None),
        ("Timeout=60", None),
        ("", None),
    ],
)
def test_wakeup(value, wakeup):
    assert mdx(WAKEUP=value).wakeup == wakeup


@pytest.mark.parametrize(
    ("value", "max_age_s"),
    [
        ("max-age=900", 900),
        ("no-cache, Max-Age = 900", 900),
        ("max-age=1", MAX_AGE_MIN_S),
        ("max-age=999999999", MAX_AGE_MAX_S),
        ("max-age=-5", MAX_AGE_DEFAULT_S),
        ("max-age=99999999999999999999999", MAX_AGE_MAX_S),
        ("s-max-age=5", MAX_AGE_DEFAULT_S),
        ("", MAX_AGE_DEFAULT_S),
    ],
)
def test_max_age_is_kept_within_reason(value, max_age_s):
    assert mdx(CACHE_CONTROL=value).max_age_s == max_age_s


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (base64.b64encode(b"a\x00b\x1b[31mc\r\nd").decode(), "ab[31mcd"),
        (base64.b64encode(b"\xff\xfe").decode(), None),
        ("no base64!", None),
        ("YWJ", None),
        (base64.b64encode(b"x" * 900).decode(), "x" * 128),
        ("", None),
    ],
)
def test_a_friendly_name_is_decoded_and_cleaned(name, expected):
    assert mdx(X_Friendly_Name=name).name == expected


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x00" * 100,
        b"M-SEARCH * HTTP/1.1\r\nMAN: ssdp:discover\r\nST: ssdp:all\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nST: upnp:rootdevice\r\nUSN: uuid:abcd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nUSN: uuid:abcd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: urn:abcd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:a b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:" + b"a" * 129 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: \xff\xfe\r\nUSN: uuid:abcd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60 + b"ST: upnp:rootdevice\r\nUSN: uuid:abcd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:abcd\r\nX: " + b"a" * DATAGRAM_BYTES_MAX,
    ],
)
def test_what_is_no_message_is_none(bad):
    assert parse(bad) is None


def test_of_two_headers_with_one_name_the_first_counts():
    said = datagram(ST=MDX, USN=f"uuid:{ESN}::{MDX}").replace(b"\r\n\r\n", b"\r\nUSN: uuid:other::" + MDX.encode())
    assert parse(said).esn == ESN


@pytest.mark.parametrize("url", ["http://a\x7f/", "http://10.0.0.1/\u202e", "http://10.0.0.1/" + "a" * 600])
def test_a_location_that_nobody_would_write_is_dropped(url):
    assert mdx(LOCATION=url).location is None


def test_a_search_says_how_long_to_spread_the_answers_only_to_many():
    assert b"MX: 1\r\n" in search(MDX, host="239.255.255.250", wait_s=1)
    assert b"MX:" not in search(MDX, host="10.77.1.9", wait_s=None)
