"""SSDP datagrams, as bytes: what a device says of itself. Pure, and never an exception, whatever the bytes.

An answer to a search (``HTTP/1.1 200 OK``) and an announcement (``NOTIFY``) carry the same headers under other names.
Devices with Netflix answer for ``urn:mdx-netflix-com:service:target:1`` or ``:3`` with ``USN: uuid:<ESN>::<target>``.
Source: UPnP Device Architecture 2.0 §1; the MDX headers from captures of real devices.
"""

import base64
import binascii
import re
from typing import Final, Literal

from msgspec import Struct

from dmpd.local_registry.sources.clean import clean_mac, clean_text

DATAGRAM_BYTES_MAX: Final = 1536
"""Longer ones are not read: they did not fit into one Ethernet frame, and no honest device sends such."""
HEADERS_MAX: Final = 40
LOCATION_LENGTH_MAX: Final = 512
NAME_LENGTH_MAX: Final = 128
MAX_AGE_DEFAULT_S: Final = 1800.0
MAX_AGE_MIN_S: Final = 30.0
MAX_AGE_MAX_S: Final = 7200.0
"""Whoever claims to stay for a year is asked again all the same."""
WAKEUP_TIMEOUT_MAX_S: Final = 86_400

MDX_TARGETS: Final = ("urn:mdx-netflix-com:service:target:1", "urn:mdx-netflix-com:service:target:3")
DIAL_TARGET: Final = "urn:dial-multiscreen-org:service:dial:1"
ROOT_TARGET: Final = "upnp:rootdevice"

_TARGET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}")
_UUID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,127}")
_ESN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{3,127}")
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_WAKEUP_PART: Final = re.compile(r"\s*(MAC|Timeout)\s*=\s*([0-9A-Fa-f:-]{1,17})\s*", re.IGNORECASE)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")


class Wakeup(Struct, frozen=True, kw_only=True):
    """The device sleeps, and can be woken over the network. Source: DIAL 2.2.1 §5.2."""

    mac: str
    timeout_s: int | None = None
    """How long it takes to wake, at most."""


class SsdpMessage(Struct, frozen=True, kw_only=True):
    """One datagram's content, cleaned and within bounds."""

    kind: Literal["reply", "alive", "byebye"]
    uuid: str
    target: str
    """ST of a reply, NT of an announcement: which service this is about."""
    max_age_s: float = MAX_AGE_DEFAULT_S
    esn: str | None = None
    name: str | None = None
    """X-Friendly-Name, decoded."""
    location: str | None = None
    """As it was sent: printable ASCII, and to be judged before use."""
    wakeup: Wakeup | None = None


def parse(datagram: bytes) -> SsdpMessage | None:
    """What a device says, or None for searches of others, for nonsense, and for what does not say who speaks."""
    if len(datagram) > DATAGRAM_BYTES_MAX:
        return None
    start, _, rest = datagram.partition(b"\n")
    kind = _kind_of(start.strip())
    if kind is None:
        return None
    headers = _headers(rest)
    if kind == "notify":
        announced = {"ssdp:alive": "alive", "ssdp:update": "alive", "ssdp:byebye": "byebye"}.get(headers.get("nts", ""))
        target = headers.get("nt", "")
    else:
        announced, target = "reply", headers.get("st", "")
    uuid, about = _split_usn(headers.get("usn", ""))
    if announced is None or uuid is None or not _TARGET.fullmatch(target):
        return None
    return SsdpMessage(
        kind=announced,  # type: ignore[arg-type]  # the values of the dict above
        uuid=uuid,
        target=target,
        max_age_s=_max_age(headers.get("cache-control", "")),
        esn=_esn(uuid, about=about, target=target),
        name=_friendly_name(headers.get("x-friendly-name")),
        location=_location(headers.get("location")),
        wakeup=_wakeup(headers.get("wakeup")),
    )


def search(target: str, *, host: str, wait_s: int | None) -> bytes:
    """The datagram that asks for ``target``; ``wait_s`` (MX) only to the multicast group, where answers are spread."""
    spread = "" if wait_s is None else f"MX: {wait_s}\r\n"
    return f'M-SEARCH * HTTP/1.1\r\nHOST: {host}:1900\r\nMAN: "ssdp:discover"\r\n{spread}ST: {target}\r\n\r\n'.encode()


def _kind_of(start: bytes) -> Literal["reply", "notify"] | None:
    words = start.split()
    if len(words) >= 2 and words[0] in (b"HTTP/1.1", b"HTTP/1.0") and words[1] == b"200":
        return "reply"
    if len(words) == 3 and words[0] == b"NOTIFY" and words[1] == b"*" and words[2].startswith(b"HTTP/1."):
        return "notify"
    return None


def _headers(lines: bytes) -> dict[str, str]:
    """Names in lower case; of several with one name the first counts. What is no header is passed over."""
    found: dict[str, str] = {}
    for line in lines.split(b"\n")[:HEADERS_MAX]:
        stripped = line.strip()
        if not stripped:
            break
        name, colon, value = stripped.partition(b":")
        if colon:
            key = name.strip().decode("ascii", errors="replace").lower()
            found.setdefault(key, value.strip().decode("utf-8", errors="replace"))
    return found


def _split_usn(usn: str) -> tuple[str | None, str | None]:
    """``uuid:ID::TARGET`` or ``uuid:ID`` → both parts."""
    scheme, _, rest = usn.partition(":")
    uuid, _, about = rest.partition("::")
    if scheme.lower() != "uuid" or not _UUID.fullmatch(uuid):
        return None, None
    return uuid, about or None


def _esn(uuid: str, *, about: str | None, target: str) -> str | None:
    """The ESN, if this message is about MDX in all that it says. A USN that contradicts its target claims nothing."""
    if target not in MDX_TARGETS or about not in (None, target):
        return None
    return uuid if _ESN.fullmatch(uuid) else None


def _max_age(cache_control: str) -> float:
    found = _MAX_AGE.search(cache_control)
    if found is None:
        return MAX_AGE_DEFAULT_S
    return min(MAX_AGE_MAX_S, max(MAX_AGE_MIN_S, float(found[1])))


def _friendly_name(encoded: str | None) -> str | None:
    if encoded is None or not _BASE64.fullmatch(encoded):
        return None
    try:
        name = base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):  # it is a name or it is not: half of one helps nobody
        return None
    return clean_text(name, length_max=NAME_LENGTH_MAX)


def _location(url: str | None) -> str | None:
    if url is None or not 0 < len(url) <= LOCATION_LENGTH_MAX or not url.isascii() or not url.isprintable():
        return None
    return url


def _wakeup(value: str | None) -> Wakeup | None:
    """``MAC=10:dd:b1:c9:00:e4;Timeout=60``."""
    if value is None:
        return None
    parts: dict[str, str] = {}
    for part in value.split(";")[:4]:
        found = _WAKEUP_PART.fullmatch(part)
        if found is not None:
            parts.setdefault(found[1].lower(), found[2])
    mac = clean_mac(parts.get("mac", "").replace("-", ":"))
    if mac is None:
        return None
    timeout = parts.get("timeout", "")
    known = timeout.isdigit() and timeout.isascii() and int(timeout) <= WAKEUP_TIMEOUT_MAX_S
    return Wakeup(mac=mac, timeout_s=int(timeout) if known else None)
