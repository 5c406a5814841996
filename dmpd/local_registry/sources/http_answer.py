"""HTTP as far as a description needs it, as bytes: where it is said to be, the question, and the answer. Pure."""

import ipaddress
import re
from typing import Final

from msgspec import Struct

HEAD_BYTES_MAX: Final = 8 * 1024
_URL: Final = re.compile(r"http://(\d{1,3}(?:\.\d{1,3}){3})(?::(\d{1,5}))?(/[!-~]*)?", re.IGNORECASE)


class Location(Struct, frozen=True, kw_only=True):
    """A URL in the only form that is ever fetched: plain HTTP, an IPv4 address, no user, no fragment."""

    ip: str
    port: int = 80
    path: str = "/"


class Answer(Struct, frozen=True, kw_only=True):
    """A complete answer. ``headers`` have names in lower case; of several with one name the first counts."""

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""


def parse_location(url: str) -> Location | None:
    """``url`` taken apart, or None if it is not of that form. A name is not: whoever looks it up asks strangers."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    port = int(found[2] or 80)
    try:
        ip = str(ipaddress.IPv4Address(found[1]))
    except ValueError:
        return None
    if not 1 <= port <= 65535:
        return None
    return Location(ip=ip, port=port, path=(found[3] or "/").partition("#")[0])


def request(location: Location, *, method: str = "GET", body: bytes = b"") -> bytes:
    """The question. HTTP/1.0, so that an honest server sends one body, in no chunks, and closes."""
    about_body = (f"Content-Length: {len(body)}", "Content-Type: text/plain; charset=utf-8") if method == "POST" else ()
    lines = (
        f"{method} {location.path} HTTP/1.0",
        f"Host: {location.ip}:{location.port}",
        "Accept-Encoding: identity",
        "Connection: close",
        *about_body,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body


def is_complete(received: bytes) -> bool:
    """Whether a body of known length has arrived whole: some servers keep the connection whatever one says."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator or len(head) > HEAD_BYTES_MAX:
        return False
    length = _length(_headers(head))
    return length is not None and len(body) >= length


def parse_answer(received: bytes, *, body_bytes_max: int) -> Answer | None:
    """The answer, or None for what is none, is cut off, in chunks (we asked by HTTP/1.0), or larger than allowed."""
    head, separator, body = received.partition(b"\r\n\r\n")
    words = head.partition(b"\r\n")[0].split()
    if not separator or len(head) > HEAD_BYTES_MAX or len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        return None
    if not (words[1].isdigit() and len(words[1]) == 3):
        return None
    headers = _headers(head)
    if "transfer-encoding" in headers:
        return None
    if "content-length" in headers:
        length = _length(headers)
        if length is None or len(body) < length:
            return None
        body = body[:length]
    if len(body) > body_bytes_max:
        return None
    return Answer(status=int(words[1]), headers=headers, body=body)


def _length(headers: dict[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _headers(head: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        found.setdefault(name.strip().decode("latin-1").lower(), value.strip().decode("latin-1"))
    return found
