#!/usr/bin/python3 -IS
"""What dnsmasq runs as its ``dhcp-script``: tells the Local Registry of one lease by one datagram, and ends.

A program of its own: it runs as root or as dnsmasq's user, under whatever ``python3`` the router has, so it imports
nothing of dmpd. dnsmasq runs its scripts one after the other, so it is quick and never waits: a socket that is full or
not there is no reason to hold up or to fail anybody, the lease file says the same a moment later. Exit code 0, always.

dnsmasq allows ``dhcp-script`` no arguments: the socket's path comes from ``DMPD_LEASE_SOCKET`` in dnsmasq's
environment, else it is where a RAE has it by default.
"""

import os
import sys
from _socket import AF_UNIX, SOCK_DGRAM, SOCK_NONBLOCK, socket  # ``socket`` takes three times as long to import

SOCKET = "/var/lib/dmpd/lease.sock"
MAGIC = b"dmpd-lease-1"
ACTIONS = ("add", "old", "del")
"""Others (``init``, ``tftp``, ``arp-add``, …) say nothing of a lease."""
VARIABLES = (b"DNSMASQ_VENDOR_CLASS", b"DNSMASQ_SUPPLIED_HOSTNAME")
"""What the lease file does not have."""
VALUE_BYTES_MAX = 1024
"""More than any DHCP option gives; what is longer is left out."""


def datagram(arguments: list[str], environment: "os._Environ[bytes] | dict[bytes, bytes]") -> bytes | None:
    """What to send for dnsmasq's ``ACTION MAC IP [HOSTNAME]``, or None if it is nothing of a lease.

    Fields between NULs, which neither an argument nor a variable can hold: magic, action, MAC or DUID, address, host
    name or nothing, then ``NAME=value`` for each of ``VARIABLES`` that is there. ``environment`` is of bytes.
    """
    if not 3 <= len(arguments) <= 4 or arguments[0] not in ACTIONS:
        return None
    fields = [MAGIC, *(os.fsencode(word) for word in arguments)]
    if len(arguments) == 3:
        fields.append(b"")
    if max(map(len, fields)) > VALUE_BYTES_MAX:
        return None
    for name in VARIABLES:
        value = environment.get(name, b"")
        if 0 < len(value) <= VALUE_BYTES_MAX:
            fields.append(name + b"=" + value)
    return b"\0".join(fields)


def main() -> None:
    """Send it.

    Raises:
        OSError: The socket is full, or nobody is there.
    """
    content = datagram(sys.argv[1:], os.environb)
    if content is not None:
        path = os.environ.get("DMPD_LEASE_SOCKET") or SOCKET
        socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK).sendto(content, path)


if __name__ == "__main__":
    try:
        main()
    finally:
        # At once, without a word and as a success, whatever it was: dnsmasq goes on, and the lease file has the lease.
        os._exit(0)
