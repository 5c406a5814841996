"""The device record on the edge: what evidence changes in it, and what a change says of two of them. Pure.

Evidence is hostile: everything that enters a record is cleaned and cut to the limits here, whatever its source did.
"""

import ipaddress
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import replace

from dmpd.local_registry.source import Evidence
from dmpd.local_registry.sources.oui import is_local
from dmpd.model import limits
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.record import CORE_FIELDS, DeviceRecord, Interface, RecordPatch
from dmpd.model.strict import check_strict

IP6_PER_INTERFACE_MAX: Final = 8
CLOSE_TO_LIMIT_BYTES: Final = 4096

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_NO_DEVICE_MACS: Final = frozenset({"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"})


def cleaned(evidence: Evidence) -> Evidence | None:
    """``evidence`` within the limits and without control characters; None if it identifies nothing."""
    mac = None if evidence.mac is None else evidence.mac.lower()
    if mac is not None and (not _MAC.fullmatch(mac) or mac in _NO_DEVICE_MACS or int(mac[1], 16) & 1):
        return None
    ip = _clean_ip(evidence.ip)
    if mac is None and ip is None and evidence.esn is None:
        return None
    return replace(
        evidence,
        mac=mac,
        ip=ip,
        hostname=_clean_text(evidence.hostname),
        client_id=_clean_text(evidence.client_id),
        vendor_class=_clean_text(evidence.vendor_class),
        port=_clean_text(evidence.port),
        esn=_clean_text(evidence.esn, bytes_max=limits.ESN_BYTES_MAX),
        esn_source=_clean_text(evidence.esn_source, limits.CODE_LENGTH_MAX),
        manufacturer=_clean_text(evidence.manufacturer),
        model=_clean_text(evidence.model),
        name=_clean_text(evidence.name),
        attributes={key: value for key, value in evidence.attributes.items() if _is_attribute(key, value)},
    )


VendorOf = Callable[[str], str | None]
"""The vendor of a MAC, if it is known."""


def no_vendor(mac: str) -> None:
    """Where there is no table of vendors."""


def learned(
    record: DeviceRecord, evidence: Evidence, *, esn: str | None, moved: bool, vendor_of: VendorOf = no_vendor
) -> DeviceRecord:
    """``record`` with what cleaned ``evidence`` adds.

    ``esn`` is the evidence's, if identity lets this device have it; ``moved`` says that the device came back under
    another MAC, so that its old interfaces are gone; ``vendor_of`` knows who made an interface.
    """
    changes: dict[str, object] = {}
    for name in ("manufacturer", "model", "name"):
        value = getattr(evidence, name)
        if value is not None:
            changes[name] = value
    if esn is not None:
        changes["esn"] = esn
        changes["esn_source"] = evidence.esn_source
    if evidence.mac is not None:
        changes["interfaces"] = _with_interface(() if moved else record.interfaces, evidence.mac, evidence, vendor_of)
    if evidence.attributes:
        attributes = {**record.attributes, **{key: Raw(value) for key, value in evidence.attributes.items()}}
        if len(attributes) <= limits.ATTRIBUTES_MAX:
            changes["attributes"] = attributes
    return replace(record, **changes)


def merged(winner: DeviceRecord, loser: DeviceRecord) -> DeviceRecord:
    """One record of two that were one device: the loser's facts are the younger ones."""
    attributes = {**winner.attributes, **loser.attributes}
    return replace(
        winner,
        interfaces=loser.interfaces or winner.interfaces,
        attributes=attributes if len(attributes) <= limits.ATTRIBUTES_MAX else winner.attributes,
        manufacturer=loser.manufacturer or winner.manufacturer,
        model=loser.model or winner.model,
        name=loser.name or winner.name,
    )


class Difference(NamedTuple):
    """What turns one record into another, as a change says it."""

    patch: RecordPatch
    unset: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.unset) or self.patch != _EMPTY


_EMPTY: Final = RecordPatch()


def difference(old: DeviceRecord, new: DeviceRecord) -> Difference:
    """The smallest change from ``old`` to ``new``; falsy when they are equal."""
    changes: dict[str, object] = {
        name: getattr(new, name) for name in CORE_FIELDS if getattr(old, name) != getattr(new, name)
    }
    if old.interfaces != new.interfaces:
        changes["interfaces"] = new.interfaces
    attributes = {
        key: value
        for key, value in new.attributes.items()
        if key not in old.attributes or bytes(old.attributes[key]) != bytes(value)
    }
    unset = tuple(sorted(key for key in old.attributes if key not in new.attributes))
    patch = replace(_EMPTY, **changes, attributes=attributes or UNSET)
    return Difference(patch, unset)


def new_record(at: datetime) -> DeviceRecord:
    """The record of a device first seen at ``at``. Online, because only a sign of life onboards."""
    return DeviceRecord(first_seen=at, onboarded_at=at)


def _with_interface(
    interfaces: tuple[Interface, ...], mac: str, evidence: Evidence, vendor_of: VendorOf
) -> tuple[Interface, ...]:
    known = next((one for one in interfaces if one.mac == mac), None)
    old = known or Interface(mac=mac, mac_random=is_local(mac))
    ip4, ip6 = old.ip4, old.ip6
    if evidence.ip is not None and ":" not in evidence.ip:
        ip4 = evidence.ip
    elif evidence.ip is not None and evidence.ip not in ip6:
        ip6 = (*ip6, evidence.ip)[-IP6_PER_INTERFACE_MAX:]
    new = replace(
        old,
        ip4=ip4,
        ip6=ip6,
        hostname=evidence.hostname or old.hostname,
        vendor_class=evidence.vendor_class or old.vendor_class,
        client_id=evidence.client_id or old.client_id,
        port=evidence.port or old.port,
        oui_vendor=_clean_text(vendor_of(mac)) or old.oui_vendor,
    )
    if new == known:
        return interfaces
    others = [one for one in interfaces if one.mac != mac]
    room = min(limits.INTERFACES_MAX, limits.ADDRESSES_MAX // (IP6_PER_INTERFACE_MAX + 1)) - 1
    return tuple(sorted([*others[-room:], new], key=lambda one: one.mac))


def _clean_text(
    text: str | None, length_max: int = limits.TEXT_LENGTH_MAX, *, bytes_max: int = 4 * limits.TEXT_LENGTH_MAX
) -> str | None:
    if text is None:
        return None
    printable = "".join(letter for letter in text[:length_max] if letter.isprintable())
    return printable.encode()[:bytes_max].decode(errors="ignore").strip() or None


def _clean_ip(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        return None
    return address.exploded if address.version == 4 else address.compressed.partition("%")[0]


def _is_attribute(key: str, value: bytes) -> bool:
    if not key.isprintable() or not 1 <= len(key.encode(errors="replace")) <= limits.ATTRIBUTE_KEY_BYTES_MAX:
        return False
    if len(value) > limits.ATTRIBUTE_VALUE_BYTES_MAX:
        return False
    try:
        msgspec.json.decode(value)
        return check_strict(value, "") <= limits.ATTRIBUTE_VALUE_BYTES_MAX
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, InvalidMessageError):
        return False
