"""Whatever bytes come from the LAN: no exception, nothing over a bound, nothing unclean."""

import ipaddress

from hypothesis import example, given
from hypothesis import strategies as st

from dmpd.local_registry.sources import dial_description, http_answer, oui, ssdp_message
from dmpd.local_registry.sources.clean import clean_mac

HEADERS = st.sampled_from(
    ["ST", "NT", "NTS", "USN", "LOCATION", "CACHE-CONTROL", "X-Friendly-Name", "WAKEUP", "usn", "", "X" * 200]
)
VALUES = st.sampled_from(
    [
        *ssdp_message.MDX_TARGETS,
        "upnp:rootdevice",
        "uuid:ESN-1::urn:mdx-netflix-com:service:target:1",
        "uuid:ESN-1",
        "uuid:",
        "ssdp:alive",
        "ssdp:byebye",
        "max-age=5",
        "max-age=" + "9" * 40,
        "MAC=02:00:00:00:00:01;Timeout=5",
        "MAC=;Timeout=\u0663",
        "http://10.0.0.1:80/d",
        "AAAA",
    ]
) | st.text(max_size=40)
STARTS = st.sampled_from(["HTTP/1.1 200 OK", "NOTIFY * HTTP/1.1", "M-SEARCH * HTTP/1.1", ""])
DATAGRAMS = st.binary(max_size=400) | st.builds(
    lambda start, headers, end: "".join(
        [start, end, *(f"{name}: {value}{end}" for name, value in headers), end]
    ).encode("utf-8", errors="surrogatepass"),
    STARTS,
    st.lists(st.tuples(HEADERS, VALUES), max_size=12),
    st.sampled_from(["\r\n", "\n"]),
)
NAMES = st.sampled_from(["root", "device", "friendlyName", "UDN", "modelName", "service", "name", "state", "options"])
XML = st.recursive(
    st.text(max_size=20).map(lambda text: text.replace("<", "&lt;")),
    lambda inner: st.builds(
        lambda name, parts: f"<{name}>{''.join(parts)}</{name}>", NAMES, st.lists(inner, max_size=4)
    ),
    max_leaves=20,
)


def clean(text: str | None, length_max: int) -> None:
    assert text is None or (0 < len(text) <= length_max and text.isprintable())
    (text or "").encode()


@given(DATAGRAMS)
@example(b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:\xc3\x28\r\n\r\n")
def test_any_datagram_can_be_read_and_comes_out_clean(datagram):
    found = ssdp_message.parse(datagram)
    if found is None:
        return
    clean(found.uuid, 128)
    clean(found.target, 128)
    clean(found.name, ssdp_message.NAME_LENGTH_MAX)
    clean(found.location, ssdp_message.LOCATION_LENGTH_MAX)
    assert ssdp_message.MAX_AGE_MIN_S <= found.max_age_s <= ssdp_message.MAX_AGE_MAX_S
    assert found.esn is None or (found.esn == found.uuid and found.target in ssdp_message.MDX_TARGETS)
    if found.wakeup is not None:
        assert clean_mac(found.wakeup.mac) == found.wakeup.mac


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9=_-]{3,60}", fullmatch=True), st.sampled_from(ssdp_message.MDX_TARGETS))
def test_every_esn_is_read_back(esn, target):
    datagram = f"HTTP/1.1 200 OK\r\nST: {target}\r\nUSN: uuid:{esn}::{target}\r\n\r\n".encode()
    assert ssdp_message.parse(datagram).esn == esn


@given(st.binary(max_size=400) | XML.map(lambda text: text.encode("utf-8", errors="surrogatepass")))
def test_any_document_can_be_read_and_comes_out_clean(body):
    found = dial_description.parse_description(body)
    if found is not None:
        for text in (found.name, found.manufacturer, found.model, found.udn):
            clean(text, dial_description.TEXT_LENGTH_MAX)
    app = dial_description.parse_app(body)
    if app is not None:
        clean(app.name, dial_description.TEXT_LENGTH_MAX)


@given(st.text(max_size=60) | st.from_regex(r"http://[0-9.]{7,16}(:[0-9]{1,6})?(/[ -~]{0,10})?", fullmatch=True))
def test_a_location_is_an_address_and_one_line(url):
    found = http_answer.parse_location(url)
    if found is not None:
        assert ipaddress.IPv4Address(found.ip)
        assert http_answer.request(found).count(b"\r\n") == 5
        assert len(http_answer.request(found).split(b"\r\n")[0].split(b" ")) == 3


PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: 3",
        b"Transfer-Encoding: chunked",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
    ]
)


@given(st.binary(max_size=200) | st.lists(PIECES, max_size=12).map(b"".join))
def test_any_answer_can_be_read_within_its_bound(received):
    http_answer.is_complete(received)
    found = http_answer.parse_answer(received, body_bytes_max=64)
    assert found is None or len(found.body) <= 64


@given(
    st.binary(max_size=600) | st.lists(st.binary(max_size=40).map(lambda b: b"3c12aa " + b), max_size=6).map(b"\n".join)
)
def test_any_table_of_vendors_can_be_read(content):
    clean(oui.OuiTable(content).vendor_of("3c:12:aa:00:00:01"), oui.VENDOR_LENGTH_MAX)
