"""Who made a network card, by the first bytes of its MAC. The table is a file of the system's, and may be absent.

Read once at start, some 5 MB in a tenth of a second, into about 1.5 MB; then only looked into.
"""

import logging
import re
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import Final

from dmpd.local_registry.sources.clean import clean_mac, clean_text

FILE_BYTES_MAX: Final = 32 << 20
VENDOR_LENGTH_MAX: Final = 64
_LOCAL_BIT: Final = 0x02
_LINE: Final = re.compile(rb"^([0-9A-Fa-f]{6})[ \t]+(?:\(base 16\)[ \t]+)?(\S[^\r\n]*)", re.MULTILINE)

_log = logging.getLogger(__name__)


def is_local(mac: str) -> bool:
    """Whether ``mac`` was made up by its device (a random one, usually) and so says nothing of a vendor."""
    return bool(int(mac[:2], 16) & _LOCAL_BIT)


class OuiTable:
    """Vendors by the 24-bit prefix that IEEE assigned. Immutable."""

    def __init__(self, content: bytes = b"") -> None:
        """Parse a table; no exception, whatever the bytes.

        Args:
            content: IEEE's ``oui.txt`` (of its two lines per vendor the one with ``(base 16)`` counts), or the compact
                form: one line per vendor, six hex digits, blanks, the name. Of several lines with one prefix the first
                counts.
        """
        names: dict[int, bytes] = {}
        for found in _LINE.finditer(content[:FILE_BYTES_MAX]):
            names.setdefault(int(found[1], 16), found[2])
        self._prefixes = array("I", sorted(names))
        self._ends = array("I")
        blob = bytearray()
        for prefix in self._prefixes:
            name = clean_text(names[prefix].decode("utf-8", errors="replace"), length_max=VENDOR_LENGTH_MAX)
            blob += (name or "").encode()
            self._ends.append(len(blob))
        self._blob = bytes(blob)

    def __len__(self) -> int:
        return len(self._prefixes)

    def vendor_of(self, mac: str) -> str | None:
        """The vendor of a MAC, or None: not in the table, made up by the device, or no MAC."""
        clean = clean_mac(mac)
        if clean is None or is_local(clean):
            return None
        prefix = int(clean[:8].replace(":", ""), 16)
        index = bisect_left(self._prefixes, prefix)
        if index == len(self._prefixes) or self._prefixes[index] != prefix:
            return None
        begin = self._ends[index - 1] if index else 0
        return self._blob[begin : self._ends[index]].decode() or None


def load(path: Path) -> OuiTable:
    """The table in ``path``; empty where there is no such file or it cannot be read. Blocks for some 0.2 s."""
    try:
        with path.open("rb") as file:
            table = OuiTable(file.read(FILE_BYTES_MAX))
    except FileNotFoundError:
        _log.info("%s is not there: no vendors are told (Debian package ieee-data brings it)", path)
        return OuiTable()
    except OSError as error:
        _log.warning("%s cannot be read, no vendors are told: %s", path, error)
        return OuiTable()
    _log.info("%d vendors in %s", len(table), path)
    return table
