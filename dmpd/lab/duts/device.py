"""One simulated device under test: what it is, and what it answers. Pure; the sockets are the responder's.

It speaks like a TV with Netflix: SSDP for MDX (the ESN is in the USN) and for DIAL (a description by HTTP whose
``Application-URL`` header names where apps are asked for, launched and stopped). Source: UPnP Device Architecture 2.0
§1, DIAL 2.2.1 §5-6.
"""

import base64
import re
from typing import Final
from xml.sax.saxutils import escape

from msgspec import Struct

MULTICAST: Final = "239.255.255.250"
SSDP_PORT: Final = 1900
HTTP_PORT: Final = 8008
WAKE_PORT: Final = 9
MDX_TARGET: Final = "urn:mdx-netflix-com:service:target:3"
DIAL_TARGET: Final = "urn:dial-multiscreen-org:service:dial:1"
APPS: Final = ("Netflix", "YouTube")
_ESN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{3,127}")
_MAX_AGE_S: Final = 1800
_WAKE_TIMEOUT_S: Final = 10
_MAKERS: Final = (("Aster", "A-7100"), ("Borealis", "Polar 55"), ("Cirrus", "C2"))
_PAGE_SIZE_MAX: Final = 4096
_PAYLOADS_MAX: Final = 10_000


class Answer(Struct, frozen=True):
    """An HTTP answer: status line's code and words, headers, body."""

    status: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def encode(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status}", f"Content-Length: {len(self.body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


class App(Struct):
    """An app of the device, and how often it was launched and stopped: a request that ran twice is seen here."""

    running: bool = False
    launches: int = 0
    stops: int = 0
    payloads: dict[str, int] = {}
    """Launches by their payload, of the first 10,000 different ones: a payload is a launch's name for tests."""


class Device(Struct):
    """The state of one DUT. ``mac`` and ``esn`` change when somebody swaps them; ``generation`` counts that."""

    number: int
    mac: str
    esn: str
    apps: dict[str, App]
    asleep: bool = False
    wakeable: bool = False
    """It says how to wake it (a WAKEUP header), and sleeps so deeply that it does not even answer ARP."""
    generation: int = 0

    @property
    def maker(self) -> str:
        return _MAKERS[self.number % len(_MAKERS)][0]

    @property
    def model(self) -> str:
        return _MAKERS[self.number % len(_MAKERS)][1]

    def answers(self, search: bytes, ip: str) -> list[bytes]:
        """The datagrams that answer a search; none when it is not one, is for others, or the device sleeps."""
        lines = search.split(b"\r\n")
        if self.asleep or not lines[0].startswith(b"M-SEARCH"):
            return []
        wanted = {line[3:].strip().decode(errors="replace") for line in lines if line[:3].upper() == b"ST:"}
        return [
            _datagram("HTTP/1.1 200 OK", ("ST", target), usn, *more)
            for target, usn, more in self._services(ip)
            if target in wanted or "ssdp:all" in wanted
        ]

    def announcements(self, ip: str, *, alive: bool) -> list[bytes]:
        """What it tells everybody when it gets an address, and when it goes to sleep."""
        host, nts = ("HOST", f"{MULTICAST}:{SSDP_PORT}"), ("NTS", "ssdp:alive" if alive else "ssdp:byebye")
        return [
            _datagram("NOTIFY * HTTP/1.1", ("NT", target), usn, host, nts, *(more if alive else ()))
            for target, usn, more in self._services(ip)
        ]

    def page(self, method: str, path: str, ip: str, body: bytes = b"") -> Answer:
        """The answer to an HTTP request; launching and stopping changes the state."""
        if path == "/dd.xml" and method == "GET":
            apps = ("Application-URL", f"http://{ip}:{HTTP_PORT}/apps")
            return Answer("200 OK", (("Content-Type", "text/xml"), apps), self._description())
        words = path.partition("?")[0].strip("/").split("/")
        app = self.apps.get(words[1]) if len(words) > 1 and words[0] == "apps" else None
        if app is None:
            return Answer("404 Not Found")
        name, instance = words[1], words[2:] == ["run"]
        if method == "GET" and len(words) == 2:
            return Answer("200 OK", (("Content-Type", "text/xml"),), _app_page(name, running=app.running))
        if method == "POST" and len(words) == 2:
            app.running, app.launches = True, app.launches + 1
            payload = body.decode(errors="replace")
            if payload and (payload in app.payloads or len(app.payloads) < _PAYLOADS_MAX):
                app.payloads[payload] = app.payloads.get(payload, 0) + 1
            return Answer("201 Created", (("LOCATION", f"http://{ip}:{HTTP_PORT}/apps/{name}/run"),))
        if method == "DELETE" and instance and app.running:
            app.running, app.stops = False, app.stops + 1
            return Answer("200 OK")
        return Answer("404 Not Found" if instance else "405 Method Not Allowed")

    def is_woken_by(self, datagram: bytes) -> bool:
        """Whether this is a magic packet for this device: six 0xFF and its MAC sixteen times, anywhere in it."""
        return b"\xff" * 6 + bytes.fromhex(self.mac.replace(":", "")) * 16 in datagram

    def _services(self, ip: str) -> list[tuple[str, tuple[str, str], tuple[tuple[str, str], ...]]]:
        """Per service: its target, the USN header, and the other headers."""
        name = base64.b64encode(f"{self.maker} TV {self.number}".encode()).decode()
        age = ("CACHE-CONTROL", f"max-age={_MAX_AGE_S}")
        wakeup = (("WAKEUP", f"MAC={self.mac};Timeout={_WAKE_TIMEOUT_S}"),) if self.wakeable else ()
        mdx = (age, ("LOCATION", f"http://{ip}:{HTTP_PORT}/dd.xml"), ("X-Friendly-Name", name))
        dial = (age, ("LOCATION", f"http://{ip}:{HTTP_PORT}/dd.xml"), *wakeup)
        return [
            (MDX_TARGET, ("USN", f"uuid:{self.esn}::{MDX_TARGET}"), mdx),
            (DIAL_TARGET, ("USN", f"uuid:{self._udn()}::{DIAL_TARGET}"), dial),
        ]

    def _udn(self) -> str:
        return f"00000000-0000-4000-8000-{self.number:012x}"

    def _description(self) -> bytes:
        return (
            '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>'
            f"<friendlyName>{escape(self.maker)} TV {self.number}</friendlyName>"
            f"<manufacturer>{escape(self.maker)}</manufacturer><modelName>{escape(self.model)}</modelName>"
            f"<UDN>uuid:{self._udn()}</UDN></device></root>"
        ).encode()


def new_device(number: int, mac: str) -> Device:
    """DUT ``number`` as it comes out of the box: awake, no app running. Every second one can be woken."""
    return Device(
        number=number, mac=mac, esn=esn_of(number, 0), apps={name: App() for name in APPS}, wakeable=number % 2 == 0
    )


def esn_of(number: int, generation: int) -> str:
    """An ESN of the lab, another one per generation."""
    return f"LABTV-{number:04d}-{generation:04d}"


def is_esn(text: str) -> bool:
    """Whether the Local Registry would take ``text`` for an ESN."""
    return _ESN.fullmatch(text) is not None


def random_mac(number: int, generation: int) -> str:
    """A locally administered MAC, as phones and pre-production boards make them up; another one per generation."""
    return f"02:00:{generation >> 8 & 0xFF:02x}:{generation & 0xFF:02x}:{number >> 8:02x}:{number & 0xFF:02x}"


def _datagram(start: str, *headers: tuple[str, str]) -> bytes:
    return "\r\n".join([start, *(f"{name}: {value}" for name, value in headers), "", ""]).encode()


def _app_page(name: str, *, running: bool) -> bytes:
    state = "running" if running else "stopped"
    link = '<link rel="run" href="run"/>' if running else ""
    return (
        '<?xml version="1.0"?><service xmlns="urn:dial-multiscreen-org:schemas:dial" dialVer="2.2.1">'
        f'<name>{escape(name)}</name><options allowStop="true"/><state>{state}</state>{link}</service>'
    ).encode()
