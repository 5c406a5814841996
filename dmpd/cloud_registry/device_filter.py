"""Which device sessions somebody asks for, and the SQL that says so. Pure.

Each filter is one condition, and only those that were given stand in the statement, so that the planner sees what there
is to use. A filter that an index serves (``is_indexed``) makes the question a single statement; what only reading can
tell (state, time, an attribute's value) walks the sessions in key order, page by page, each a short statement.
"""

import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, LiteralString

from msgspec import Struct

from dmpd.model.record import DeviceState

CANARY_PREFIX: Final = "canary-"

_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


class DeviceFilter(Struct, frozen=True, kw_only=True):
    """What is ``None``, empty or false does not narrow. Texts are as they are stored; see ``mac_of``, ``ip_of``."""

    rae: str | None = None
    state: DeviceState | None = None
    esn: str | None = None
    mac: str | None = None
    """Of any interface."""
    ip: str | None = None
    """Of any interface, IPv4 or IPv6."""
    attributes: Mapping[str, str] = {}
    """JSON text by name; all of them must be equal, as JSON is."""
    stale: bool = False
    since: datetime | None = None
    """Rows written at or after this, by the database's clock."""
    canary: bool = False
    """Also the canary's own RAEs; they are shown anyway when ``rae`` names one."""

    @property
    def is_indexed(self) -> bool:
        """Whether an index leads to what is asked for."""
        return self.stale or any(one is not None for one in (self.rae, self.esn, self.mac, self.ip))

    def where(self) -> tuple[list[LiteralString], dict[str, Any]]:
        """Conditions on ``device_session AS s``, to be joined by AND, and their parameters."""
        conditions: list[LiteralString] = ["s.closed_at IS NULL"]
        values: dict[str, Any] = {}
        for name, condition in _CONDITIONS.items():
            value = getattr(self, name)
            if value is not None:
                conditions.append(condition)
                values[name] = value
        if self.ip is not None:
            is_v6 = ":" in self.ip
            conditions.append(_IP6 if is_v6 else _IP4)
            values["ip"] = spellings(self.ip) if is_v6 else self.ip
        if self.stale:
            conditions.append("s.stale")
        if not self.canary and not (self.rae or "").startswith(CANARY_PREFIX):
            conditions.append("s.rae NOT LIKE 'canary-%%'")
        if self.attributes:
            conditions.append(_ATTRIBUTES)
            values |= {"names": list(self.attributes), "texts": list(self.attributes.values())}
        return conditions, values


_CONDITIONS: Final[Mapping[str, LiteralString]] = {
    "rae": "s.rae = %(rae)s",
    "state": "s.state = %(state)s",
    "esn": "s.esn = %(esn)s",
    "mac": "(s.rae, s.session) IN (SELECT i.rae, i.session FROM device_interface AS i WHERE i.mac = %(mac)s)",
    "since": "s.applied_at >= %(since)s",
}
_IP4: Final[LiteralString] = (
    "(s.rae, s.session) IN (SELECT i.rae, i.session FROM device_interface AS i WHERE i.ip4 = %(ip)s)"
)
_IP6: Final[LiteralString] = (
    "(s.rae, s.session) IN (SELECT i.rae, i.session FROM device_interface AS i WHERE i.ip6 ?| %(ip)s::text[])"
)

# A scalar and not a join: at most one row by the whole primary key, whatever the planner thinks of the rest.
_ATTRIBUTES: Final[LiteralString] = """NOT EXISTS (
    SELECT 1 FROM unnest(%(names)s::text[], %(texts)s::text[]) AS w (name, text)
    WHERE (SELECT a.value = w.text::jsonb FROM device_attribute AS a
        WHERE a.rae = s.rae AND a.session = s.session AND a.name = w.name) IS NOT TRUE)"""


def mac_of(text: str) -> str:
    """A MAC as it is stored, from any of its usual spellings. Raises ``ValueError``."""
    digits = re.sub(r"[:.-]", "", text).lower()
    mac = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
    if not _MAC.fullmatch(mac):
        raise ValueError(f"expected a MAC address such as 02:00:5e:10:00:01, got {text[:40]!r}")
    return mac


def spellings(ip6: str) -> list[str]:
    """The usual ways to write an IPv6 address, the short one first.

    Local Registries of dmpd write that one; a row is as its RAE sent it, and others need not.
    """
    address = ipaddress.IPv6Address(ip6)
    groups = address.exploded.split(":")
    found = [str(address), address.exploded, ":".join(group.lstrip("0") or "0" for group in groups)]
    if address.ipv4_mapped is not None:
        found.append(f"::ffff:{address.ipv4_mapped}")
    return list(dict.fromkeys([*found, *(spelling.upper() for spelling in found)]))


def ip_of(text: str) -> str:
    """An address as it is stored. Raises ``ValueError``."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError as error:
        raise ValueError(f"expected an IPv4 or IPv6 address, got {text[:60]!r}") from error
