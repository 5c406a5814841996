"""Rows as the model knows them, read from the database. Used by the sink and by the queries."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from dmpd.cloud_registry import statements
from dmpd.model.apply import DeviceRow
from dmpd.model.record import DeviceRecord, Interface
from dmpd.runtime.database import Connection

Key = tuple[str, str]
"""``(rae, session)``."""


def read_rows(connection: Connection, keys: Collection[Key]) -> dict[Key, DeviceRow]:
    """The rows of ``keys`` that exist, without their content's children. No lock."""
    return _heads(connection.execute(statements.READ, columns(keys)))


def lock_rows(connection: Connection, keys: Collection[Key]) -> dict[Key, DeviceRow]:
    """Like ``read_rows``, and locks them in key order until the transaction ends."""
    return _heads(connection.execute(statements.LOCK, columns(keys)))


def with_content(connection: Connection, rows: Mapping[Key, DeviceRow]) -> dict[Key, DeviceRow]:
    """``rows`` with interfaces and attributes: read by a statement after the lock, hence never older than it."""
    if not rows:
        return {}
    keys = columns(rows)
    interfaces: dict[Key, list[Interface]] = {}
    for rae, session, *values in connection.execute(statements.READ_INTERFACES, keys):
        interfaces.setdefault((rae, session), []).append(_interface(values))
    attributes: dict[Key, dict[str, Raw]] = {}
    for rae, session, name, value in connection.execute(statements.READ_ATTRIBUTES, keys):
        attributes.setdefault((rae, session), {})[name] = Raw(value.encode())
    replace = msgspec.structs.replace
    return {
        key: replace(
            row,
            record=replace(row.record, interfaces=tuple(interfaces.get(key, ())), attributes=attributes.get(key, {})),
        )
        for key, row in rows.items()
    }


class Whole(NamedTuple):
    """A row as it is at one moment, complete, and what put it there."""

    epoch: int
    rev: int
    seq: int
    is_exact: bool
    """Open, and neither stale nor absent; and ``record`` is complete: of a large one it is not."""
    partition: int
    offset: int
    record: DeviceRecord


def read_whole(connection: Connection, keys: Collection[Key]) -> dict[Key, Whole]:
    """The rows of ``keys`` that exist, each with its children. One statement, no lock.

    All together are bounded: of many rows, those that are large come without their children.
    """
    found: dict[Key, Whole] = {}
    bytes_max = min(_WHOLE_BYTES_MAX, _ANSWER_BYTES_MAX // (2 * len(keys))) if keys else 0
    for rae, session, *values in connection.execute(statements.READ_WHOLE, (*columns(keys), bytes_max)):
        *place, esn, source, manufacturer, model, name, state, first_seen, onboarded_at, interfaces, attributes = values
        if interfaces == "" or attributes == "":  # not NULL, which is none
            interfaces = attributes = None
            place[3] = False
        record = DeviceRecord(
            esn=esn,
            esn_source=source,
            manufacturer=manufacturer,
            model=model,
            name=name,
            state=state,
            interfaces=() if interfaces is None else tuple(map(_interface, msgspec.json.decode(interfaces))),
            attributes={} if attributes is None else _attributes_decoder.decode(attributes),
            first_seen=first_seen,
            onboarded_at=onboarded_at,
        )
        found[rae, session] = Whole._make([*place, record])
    return found


def content_bytes(connection: Connection, keys: Collection[Key]) -> dict[Key, int]:
    """About what ``with_content`` would bring of each of ``keys``, 0 of what does not exist. No lock."""
    return {(rae, session): size for rae, session, size in connection.execute(statements.CONTENT_BYTES, columns(keys))}


_WHOLE_BYTES_MAX: Final = 64 << 10
"""Of a row's attributes, and of its interfaces: nearly every row takes a hundredth."""
_ANSWER_BYTES_MAX: Final = 32 << 20
"""In memory it takes about three times as much."""
_attributes_decoder: Final = msgspec.json.Decoder(dict[str, Raw])


def columns(keys: Iterable[Key]) -> tuple[list[str], list[str]]:
    """Keys as the two arrays that the statements take, in key order."""
    ordered = sorted(keys)
    return [rae for rae, _ in ordered], [session for _, session in ordered]


def _heads(found: Iterable[Sequence[Any]]) -> dict[Key, DeviceRow]:
    return {(values[0], values[1]): _head(*values) for values in found}


def _head(
    rae: str,
    session: str,
    epoch: int,
    rev: int,
    seq: int,
    stale: bool,  # noqa: FBT001 - a row of the database, in the order of its columns
    absent: bool,  # noqa: FBT001 - likewise
    closed: Any,
    successor: str | None,
    changed_at: Any,
    *core: Any,
) -> DeviceRow:
    esn, esn_source, manufacturer, model, name, state, first_seen, onboarded_at = core
    return DeviceRow(
        rae=rae,
        session=session,
        epoch=epoch,
        rev=rev,
        seq=seq,
        stale=stale,
        absent=absent,
        closed=closed,
        successor=successor,
        changed_at=changed_at,
        record=DeviceRecord(
            esn=esn,
            esn_source=esn_source,
            manufacturer=manufacturer,
            model=model,
            name=name,
            state=state,
            first_seen=first_seen,
            onboarded_at=onboarded_at,
        ),
    )


def _interface(values: Sequence[Any]) -> Interface:
    mac, ip4, ip6, hostname, vendor_class, client_id, port, oui_vendor, mac_random = values
    return Interface(
        mac=mac,
        ip4=ip4,
        ip6=tuple(ip6),
        hostname=hostname,
        vendor_class=vendor_class,
        client_id=client_id,
        port=port,
        oui_vendor=oui_vendor,
        mac_random=mac_random,
    )
