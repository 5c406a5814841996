"""What dnsmasq's ``dhcp-script`` says of a lease, as a datagram of ``lease_hook``. Pure: bytes in, an event out.

None instead of an event, and never an exception, whatever the bytes: who may write to the socket may still write
nonsense, and what a device says of itself is in it as it came. Source: dnsmasq 2.90, helper.c.
"""

from typing import Final, Literal, cast, get_args

from msgspec import Struct

from dmpd.local_registry.sources import lease_hook
from dmpd.local_registry.sources.clean import HOSTNAME_LENGTH_MAX, clean_ip, clean_mac, clean_text

Action = Literal["add", "old", "del"]
DATAGRAM_BYTES_MAX: Final = 8 << 10
"""More than ``lease_hook`` ever sends."""
VENDOR_CLASS_LENGTH_MAX: Final = 255
"""DHCP option 60 holds at most 255 bytes."""
_MAGIC: Final = lease_hook.MAGIC.decode()
_ETHERNET: Final = "01-"
_FIELDS_MAX: Final = 16


class LeaseEvent(Struct, frozen=True, kw_only=True):
    """One call of the script.

    ``add`` = a lease that was not there, ``old`` = one renewed, renamed or known from before dnsmasq's restart, ``del``
    = one given back or run out. ``old`` comes without vendor class, for a renewal too (measured).
    """

    action: Action
    mac: str | None
    """None for DHCPv6, as in the lease file."""
    ip: str
    hostname: str | None = None
    """As granted by the server, else as the device calls itself: two may claim one name, and one of them gets it."""
    vendor_class: str | None = None


def parse(datagram: bytes) -> LeaseEvent | None:
    """Read one datagram; None for what ``lease_hook`` would not have sent, or what no device can be."""
    if len(datagram) > DATAGRAM_BYTES_MAX:
        return None
    fields = [field.decode("utf-8", errors="replace") for field in datagram.split(b"\0", _FIELDS_MAX)]
    if not 5 <= len(fields) < _FIELDS_MAX or fields[0] != _MAGIC:
        return None
    action, owner, address, hostname = fields[1:5]
    said = dict(_variable(field) for field in fields[5:])
    ip = clean_ip(address)
    if action not in get_args(Action) or ip is None:
        return None
    v6 = ":" in ip
    # A MAC has its type in front unless that is Ethernet; for DHCPv6 there is the DUID in its place.
    mac = None if v6 else clean_mac(owner.removeprefix(_ETHERNET))
    if mac is None and not v6:
        return None
    return LeaseEvent(
        action=cast("Action", action),
        mac=mac,
        ip=ip,
        hostname=clean_text(hostname or said.get("SUPPLIED_HOSTNAME", ""), length_max=HOSTNAME_LENGTH_MAX),
        vendor_class=clean_text(said.get("VENDOR_CLASS", ""), length_max=VENDOR_CLASS_LENGTH_MAX),
    )


def _variable(field: str) -> tuple[str, str]:
    name, _, value = field.partition("=")
    return name.removeprefix("DNSMASQ_"), value
