"""Which IPv4 addresses are this machine's own, and which can be devices of its LAN.

Asked of the kernel by ioctl, for this process's network namespace; needs no privilege and does not block.
"""

import array
import fcntl
import ipaddress
import socket
import struct
from typing import Final

from msgspec import Struct

_SIOCGIFCONF: Final = 0x8912
_SIOCGIFNETMASK: Final = 0x891B
_IFREQ: Final = struct.Struct("16sH2s4s16x")
"""Name, family, port, IPv4 address; the rest of the union, on 64-bit Linux."""
_IFCONF: Final = struct.Struct("iP")
_ADDRESSES_MAX: Final = 256


class LanAddresses(Struct, frozen=True):
    """One reading."""

    networks: tuple[ipaddress.IPv4Network, ...] = ()
    """Prefixes of the LAN interface."""
    own: frozenset[str] = frozenset()
    """All addresses of this machine, on whatever interface."""

    def is_device(self, ip: str) -> bool:
        """Whether ``ip`` can be a device's: in a prefix of the LAN, one host's, and not ours."""
        try:
            address = ipaddress.IPv4Address(ip)
        except ValueError:
            return False
        if str(address) in self.own:
            return False
        return any(
            address in network and address not in (network.network_address, network.broadcast_address)
            for network in self.networks
        )


def read(interface: str) -> LanAddresses:
    """Ask the kernel.

    Raises:
        OSError: It does not say.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        networks, own = [], set()
        for name, packed in _configured(sock):
            own.add(socket.inet_ntoa(packed))
            if name.partition(b":")[0] == interface.encode():
                mask = fcntl.ioctl(sock, _SIOCGIFNETMASK, _IFREQ.pack(name, socket.AF_INET, b"", packed))
                length = int.from_bytes(_IFREQ.unpack(mask)[3], "big").bit_count()
                networks.append(ipaddress.IPv4Network((socket.inet_ntoa(packed), length), strict=False))
    return LanAddresses(networks=tuple(networks), own=frozenset(own))


def _configured(sock: socket.socket) -> list[tuple[bytes, bytes]]:
    """Label and address of every IPv4 address that is configured."""
    room = array.array("B", bytes(_IFREQ.size * _ADDRESSES_MAX))
    where, _length = room.buffer_info()
    answer = fcntl.ioctl(sock, _SIOCGIFCONF, _IFCONF.pack(len(room), where))
    used = _IFCONF.unpack(answer)[0]
    found = _IFREQ.iter_unpack(room.tobytes()[:used])
    return [(name.rstrip(b"\0"), address) for name, family, _port, address in found if family == socket.AF_INET]
