"""Whether the cloud's row says what the RAE's own store says, field by field. Pure."""

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from dmpd.cloud_registry.same_json import same_json
from dmpd.model.apply import DeviceRow
from dmpd.model.messages import ClosedReason
from dmpd.model.record import CORE_FIELDS, DeviceRecord

Kind = Literal["missing", "wrong", "phantom", "unsettled"]
"""``missing``: the cloud lacks it, whole or its newest revisions; ``wrong``: it says something else; ``phantom``: an
open device that no store has; ``unsettled``: it kept changing while it was looked at, so nothing can be said."""


class EdgeRecord(Struct, frozen=True, kw_only=True):
    """One device session as its RAE's store has it."""

    rae: str
    session: str
    epoch: int
    """Of its latest outbox row; what is not an outbox row (periodic checkpoints) may carry a later one."""
    rev: int
    record: DeviceRecord
    closed: ClosedReason | None = None

    @property
    def position(self) -> tuple[int, int, ClosedReason | None]:
        """Changes whenever the record does."""
        return self.epoch, self.rev, self.closed


class Difference(Struct, frozen=True, kw_only=True):
    """One thing that is not the same; ``edge`` and ``cloud`` are texts for people."""

    rae: str
    session: str
    kind: Kind
    field: str
    edge: str
    cloud: str


def compare(edge: EdgeRecord | None, row: DeviceRow | None) -> list[Difference]:
    """What differs for one device session; ``None``: that side has none.

    A row that a roster declared absent, or a tombstone, of a session that no store has is no difference: the cloud says
    that it is gone, and it is.
    """
    if edge is None:
        if row is None or row.absent or row.closed is not None:
            return []
        return [_difference(row, "phantom", "session", "none", f"rev {row.rev}, {row.record.state}")]
    if row is None:
        ended = f", closed {edge.closed}" if edge.closed else ""
        return [_difference(edge, "missing", "session", f"rev {edge.rev}{ended}", "none")]
    return [
        _difference(edge, kind, field, edge_says, cloud_says)
        for kind, field, edge_says, cloud_says in _differing(edge, row)
    ]


_Found = tuple[Kind, str, str, str]


def _differing(edge: EdgeRecord, row: DeviceRow) -> Iterator[_Found]:
    if row.closed != edge.closed:
        yield ("missing" if row.closed is None else "wrong", "closed", str(edge.closed), str(row.closed))
    if row.rev != edge.rev:
        yield ("missing" if row.rev < edge.rev else "wrong", "rev", str(edge.rev), str(row.rev))
    if row.epoch < edge.epoch:
        yield "missing", "epoch", str(edge.epoch), str(row.epoch)
    if edge.closed is not None or row.closed is not None:
        return
    if row.stale:
        yield "wrong", "stale", "false", "true"
    if row.absent:
        yield "wrong", "absent", "false", "true"
    if row.rev == edge.rev:  # of another revision everything may differ, and none of it is news
        yield from _content(edge.record, row.record)


def _content(edge: DeviceRecord, cloud: DeviceRecord) -> Iterable[_Found]:
    for name in CORE_FIELDS:
        edge_value, cloud_value = getattr(edge, name), getattr(cloud, name)
        if edge_value != cloud_value:
            yield "wrong", name, str(edge_value), str(cloud_value)
    if edge.interfaces != cloud.interfaces:
        yield "wrong", "interfaces", _json(edge.interfaces), _json(cloud.interfaces)
    for name in sorted(edge.attributes.keys() | cloud.attributes.keys()):
        edge_raw, cloud_raw = edge.attributes.get(name), cloud.attributes.get(name)
        if edge_raw is None or cloud_raw is None or not same_json(edge_raw, cloud_raw):
            yield "wrong", f"attributes.{name}", _raw(edge_raw), _raw(cloud_raw)


def _difference(of: EdgeRecord | DeviceRow, kind: Kind, field: str, edge: str, cloud: str) -> Difference:
    return Difference(rae=of.rae, session=of.session, kind=kind, field=field, edge=edge, cloud=cloud)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _raw(value: Raw | None) -> str:
    return "none" if value is None else bytes(value).decode()
