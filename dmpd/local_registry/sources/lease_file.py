"""dnsmasq's lease file, as text. Pure: bytes in, leases out, and never an exception, whatever the bytes.

Lines are ``expiry mac ip hostname client-id``; behind a line ``duid …`` they are DHCPv6 leases,
``expiry iaid ip6 hostname duid``. ``*`` = none. Source: dnsmasq 2.90, lease.c.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from dmpd.local_registry.sources.clean import (
    CLIENT_ID_LENGTH_MAX,
    HOSTNAME_LENGTH_MAX,
    clean_hex,
    clean_ip,
    clean_mac,
    clean_text,
)

FILE_BYTES_MAX: Final = 4 << 20
LEASES_MAX: Final = 4096
_LINE_BYTES_MAX: Final = 2048
_EXPIRY_MAX: Final = 2**53
_NONE: Final = "*"


class Lease(Struct, frozen=True, kw_only=True):
    """One line of the file.

    ``expiry`` is Unix time in seconds, 0 = never; on routers without a clock dnsmasq writes the lease's length instead,
    so it tells a renewal from no renewal and nothing more.
    """

    expiry: int
    mac: str | None
    """None for DHCPv6: the file does not have it there."""
    ip: str
    hostname: str | None = None
    client_id: str | None = None
    """Option 61, or the DUID for DHCPv6."""


class LeaseFile(Struct, frozen=True, kw_only=True):
    """What one reading of the file gave, at most 4096 leases. ``bad_lines`` could not be understood."""

    leases: dict[str, Lease] = {}
    """By address."""
    bad_lines: int = 0


def parse(content: bytes) -> LeaseFile:
    """Read the leases of a file, also of one that is just being written.

    dnsmasq writes over the old content and cuts the file at the end: a reader in between sees the new lines, then a
    rest of old ones that may begin in the middle. So the first line of an address counts, and a line that makes no
    sense is only counted.
    """
    leases: dict[str, Lease] = {}
    bad_lines = 0
    v6 = False
    for line in _lines(content[:FILE_BYTES_MAX]):
        if line.startswith(b"duid "):
            v6 = True
            continue
        lease = _parse_line(line, v6=v6)
        if lease is None or len(leases) >= LEASES_MAX:
            bad_lines += 1
        else:
            leases.setdefault(lease.ip, lease)
    return LeaseFile(leases=leases, bad_lines=bad_lines)


def _lines(content: bytes) -> Iterator[bytes]:
    return (line for line in content.split(b"\n") if line.strip())


def _parse_line(line: bytes, *, v6: bool) -> Lease | None:
    if len(line) > _LINE_BYTES_MAX:
        return None
    words = line.decode("utf-8", errors="replace").split(" ")
    if len(words) != 5:
        return None
    expiry, owner, address, hostname, client_id = words
    ip = clean_ip(address)
    mac = None if v6 else clean_mac(owner)
    if ip is None or (":" in ip) != v6 or (mac is None and not v6):
        return None
    if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 16 and int(expiry) <= _EXPIRY_MAX):
        return None
    return Lease(
        expiry=int(expiry),
        mac=mac,
        ip=ip,
        hostname=None if hostname == _NONE else clean_text(hostname, length_max=HOSTNAME_LENGTH_MAX),
        client_id=None if client_id == _NONE else clean_hex(client_id, length_max=CLIENT_ID_LENGTH_MAX),
    )
