"""Bounds of a decoded message that types alone cannot say: bytes, sums, and what contradicts itself."""

import ipaddress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

from msgspec import UNSET

from dmpd.model import limits
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Change, Checkpoint, Closed, Durable, Event, Message, Request, Roster, Status
from dmpd.model.record import Attributes, DeviceRecord, Interfaces, RecordPatch
from dmpd.model.strict import plain_bytes
from dmpd.model.topics import RAE_SESSION

_CHARACTERS_SAFE = limits.ATTRIBUTE_KEY_BYTES_MAX // 4
"""A name of so many characters is within its bound of bytes whatever the characters are."""


def check_bounds(message: Message, payload_bytes: int) -> None:
    """Refuse ``message`` if it is over a bound or says two things at once.

    Raises:
        InvalidMessageError: ``too_large``, ``range``, ``malformed`` or ``mismatch``.
    """
    check_instant(message.at)
    if isinstance(message, Change):
        _check_is_device(message)
        _check_content(message.patch, payload_bytes)
        if message.unset:
            _check_unset(message)
    elif isinstance(message, Checkpoint):
        _check_is_device(message)
        _check_content(message.record, payload_bytes)
    elif isinstance(message, Closed):
        _check_is_device(message)
        if message.successor == message.session:
            raise InvalidMessageError("malformed", "a session cannot be its own successor")
    elif isinstance(message, Event):
        check_attributes(message.detail, payload_bytes)
    elif isinstance(message, Status | Roster):
        _check_is_rae(message)
        if isinstance(message, Roster):
            _check_roster(message)
        else:
            _check_status(message)
    elif isinstance(message, Request):
        check_attributes(message.args, payload_bytes)
    elif isinstance(message, Durable) and any(first > last for first, last in message.stored):
        raise InvalidMessageError("range", "a range of stored rows ends before it begins")


def check_attributes(attributes: Attributes, payload_bytes: int) -> None:
    """Names and values of ``attributes``; ``payload_bytes`` of the whole message (its ``plain_bytes``) or more."""
    for name in attributes:
        if not 0 < len(name) <= _CHARACTERS_SAFE:
            check_attribute_name(name)
    if payload_bytes > limits.ATTRIBUTE_VALUE_BYTES_MAX:
        for name, value in attributes.items():
            if plain_bytes(memoryview(value)) > limits.ATTRIBUTE_VALUE_BYTES_MAX:
                detail = f"attribute {name!r:.64}: over {limits.ATTRIBUTE_VALUE_BYTES_MAX} bytes"
                raise InvalidMessageError("too_large", detail)


def check_attribute_name(name: str) -> None:
    if not 1 <= len(name.encode()) <= limits.ATTRIBUTE_KEY_BYTES_MAX:
        raise InvalidMessageError("too_large", f"attribute name: expected 1 to {limits.ATTRIBUTE_KEY_BYTES_MAX} bytes")


def _check_is_device(message: Change | Checkpoint | Closed) -> None:
    if message.session == RAE_SESSION:
        raise InvalidMessageError("mismatch", "a device message on the RAE's own topic")


def _check_is_rae(message: Status | Roster) -> None:
    if message.session != RAE_SESSION:
        raise InvalidMessageError("mismatch", "status and roster belong on the RAE's own topic")


def _check_content(content: RecordPatch | DeviceRecord, payload_bytes: int) -> None:
    if content.attributes is not UNSET:
        check_attributes(content.attributes, payload_bytes)
    if content.interfaces is not UNSET and content.interfaces:
        check_interfaces(content.interfaces)
    check_esn(content.esn)
    if isinstance(content.first_seen, datetime):
        check_instant(content.first_seen)
    if isinstance(content.onboarded_at, datetime):
        check_instant(content.onboarded_at)


def check_esn(esn: object) -> None:
    """Of a record or patch: absent and ``None`` pass."""
    if isinstance(esn, str) and 4 * len(esn) > limits.ESN_BYTES_MAX and len(esn.encode()) > limits.ESN_BYTES_MAX:
        raise InvalidMessageError("too_large", f"esn: over {limits.ESN_BYTES_MAX} bytes")


def _check_unset(message: Change) -> None:
    names = message.patch.attributes
    for name in message.unset:
        check_attribute_name(name)
        if names is not UNSET and name in names:
            raise InvalidMessageError("malformed", f"attribute {name!r:.64} is both set and unset")


def check_interfaces(interfaces: Interfaces) -> None:
    addresses = 0
    for interface in interfaces:
        addresses += (interface.ip4 is not None) + len(interface.ip6)
        if interface.ip4 is not None and not _is_address(interface.ip4, 4):
            raise InvalidMessageError("malformed", f"{interface.ip4!r} is no IPv4 address")
        for address in interface.ip6:
            if not _is_address(address, 6):
                raise InvalidMessageError("malformed", f"{address!r} is no IPv6 address")
    if addresses > limits.ADDRESSES_MAX:
        raise InvalidMessageError("too_large", f"more than {limits.ADDRESSES_MAX} addresses")


@lru_cache(maxsize=16_384)
def _is_address(text: str, version: Literal[4, 6]) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _check_status(status: Status) -> None:
    if status.outbox_age_s > limits.AGE_S_MAX:
        raise InvalidMessageError("range", f"outbox_age_s: expected at most {limits.AGE_S_MAX}")
    if abs(status.certificate_days_left or 0) > limits.DAYS_MAX:
        raise InvalidMessageError("range", f"certificate_days_left: expected at most {limits.DAYS_MAX}, either way")


def _check_roster(roster: Roster) -> None:
    if roster.first > roster.last:
        raise InvalidMessageError("range", "the range of a roster ends before it begins")
    if any(not roster.first <= session <= roster.last for session in roster.sessions):
        raise InvalidMessageError("range", "a session outside the roster's own range")


def check_instant(instant: datetime) -> None:
    if not limits.YEAR_MIN <= instant.year <= limits.YEAR_MAX:
        raise InvalidMessageError("range", f"expected a year of {limits.YEAR_MIN} to {limits.YEAR_MAX}")
    if instant.tzinfo is not UTC and abs(instant.utcoffset() or _NO_TIME) >= _ZONE_END:
        raise InvalidMessageError("range", f"expected a zone less than {limits.ZONE_HOURS} hours from UTC")


_NO_TIME: Final = timedelta()
_ZONE_END: Final = timedelta(hours=limits.ZONE_HOURS)
