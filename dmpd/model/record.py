"""The device record: everything known of one device session, as it travels and as it is stored."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from dmpd.model import limits

Text = Annotated[str, Meta(max_length=limits.TEXT_LENGTH_MAX)]
Code = Annotated[str, Meta(min_length=1, max_length=limits.CODE_LENGTH_MAX)]
Mac = Annotated[str, Meta(pattern=r"^[0-9a-f]{2}(?::[0-9a-f]{2}){5}\Z")]
Ip = Annotated[str, Meta(pattern=r"^[0-9a-fA-F.:]{2,45}\Z")]
Instant = Annotated[datetime, Meta(tz=True)]
"""RFC 3339 with a zone; dmpd itself writes UTC with millisecond resolution."""

DeviceState = Literal["unknown", "online", "standby", "asleep", "offline", "flapping"]

Attributes = Annotated[dict[str, Raw], Meta(max_length=limits.ATTRIBUTES_MAX)]
"""Name to any JSON value, kept as the JSON text that was received."""


class Interface(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network interface of a device. Neither MAC nor address is a key: both change on pre-production devices."""

    mac: Mac
    ip4: Ip | None = None
    ip6: tuple[Ip, ...] = ()
    hostname: Text | None = None
    vendor_class: Text | None = None
    client_id: Text | None = None
    port: Text | None = None
    oui_vendor: Text | None = None
    mac_random: bool = False


Interfaces = Annotated[tuple[Interface, ...], Meta(max_length=limits.INTERFACES_MAX)]


class DeviceRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The complete record, the content of a checkpoint."""

    esn: Text | None = None
    esn_source: Code | None = None
    manufacturer: Text | None = None
    model: Text | None = None
    name: Text | None = None
    state: DeviceState = "unknown"
    interfaces: Interfaces = ()
    attributes: Attributes = {}
    first_seen: Instant | None = None
    onboarded_at: Instant | None = None


class RecordPatch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Final values of the fields that a change sets: absent = untouched, null = cleared.

    ``attributes`` merge by key; ``interfaces`` replace the whole list.
    """

    esn: Text | None | UnsetType = UNSET
    esn_source: Code | None | UnsetType = UNSET
    manufacturer: Text | None | UnsetType = UNSET
    model: Text | None | UnsetType = UNSET
    name: Text | None | UnsetType = UNSET
    state: DeviceState | UnsetType = UNSET
    interfaces: Interfaces | UnsetType = UNSET
    attributes: Attributes | UnsetType = UNSET
    first_seen: Instant | None | UnsetType = UNSET
    onboarded_at: Instant | None | UnsetType = UNSET


CORE_FIELDS = (
    "esn",
    "esn_source",
    "manufacturer",
    "model",
    "name",
    "state",
    "first_seen",
    "onboarded_at",
)
"""The fields of a record that are single values: columns of the session row."""
