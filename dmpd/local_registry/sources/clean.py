"""Strict forms for what strangers on the LAN say: a MAC, an address, a line of text, or None. Pure."""

import ipaddress
import re
from typing import Final

HOSTNAME_LENGTH_MAX: Final = 253
"""The longest name that DNS knows."""
CLIENT_ID_LENGTH_MAX: Final = 255 * 3 - 1
"""DHCP option 61 holds at most 255 bytes; written as hex pairs with colons."""
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_HEX_PAIRS: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2})*")
_GROUP_BIT: Final = 0x01


def clean_mac(text: str) -> str | None:
    """A unicast Ethernet address in lower case, or None (groups, broadcast and all zeros are no device)."""
    mac = text.lower()
    if not _MAC.fullmatch(mac) or mac == "00:00:00:00:00:00" or int(mac[:2], 16) & _GROUP_BIT:
        return None
    return mac


def clean_ip(text: str) -> str | None:
    """An address that one device can have, in canonical form and without a zone, or None."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.is_unspecified or address.is_multicast or address.is_loopback or "%" in text:
        return None
    if address.version == 4 and address == ipaddress.IPv4Address("255.255.255.255"):
        return None
    return str(address)


def clean_text(text: str, *, length_max: int) -> str | None:
    """``text`` without what cannot be printed, cut to ``length_max`` characters; None when nothing is left."""
    return "".join(c for c in text if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF).strip()[:length_max] or None


def clean_hex(text: str, *, length_max: int) -> str | None:
    """Hex pairs joined by colons, in lower case, or None; too long is None too, a cut identifier identifies nobody."""
    pairs = text.lower()
    return pairs if len(pairs) <= length_max and _HEX_PAIRS.fullmatch(pairs) else None
