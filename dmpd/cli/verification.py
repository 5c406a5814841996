"""Compares Local Registry stores with the database, record by record, exact even while devices keep changing.

A session is judged only when its store says the same before and after its row was read; one that differs is looked at
again until the deadline, because what is on its way is not lost.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from dmpd.cloud_registry import query
from dmpd.cloud_registry.compare import Difference, EdgeRecord, compare
from dmpd.local_registry.store import DATABASE_NAME, read_devices
from dmpd.model.apply import DeviceRow
from dmpd.runtime.database import Connection

_ROUND_S: Final = 0.25

Sessions = Mapping[str, EdgeRecord]


class Verification(Struct, frozen=True, kw_only=True):
    """What was found. ``equal`` is the verdict."""

    raes: int
    compared: int
    """Device sessions looked at, open and closed, of either side."""
    committed: int
    """Changes committed in the stores since ever: Σ rev."""
    missing: int
    """Sessions that the database lacks, or lacks revisions of."""
    wrong: int
    """Sessions that the database has otherwise."""
    phantoms: int
    """Open sessions in the database that no store has."""
    unsettled: int
    """Sessions that changed each time they were looked at."""
    differences: Sequence[Difference]
    seconds: float

    @property
    def equal(self) -> bool:
        return not self.differences


def stores_below(folder: Path) -> dict[str, Path]:
    """Database files by serial, where ``folder`` holds one state folder per RAE, named by its serial."""
    return {path.parent.name: path for path in sorted(folder.glob(f"*/{DATABASE_NAME}"))}


def verify(
    stores: Mapping[str, Path],
    connection: Connection,
    *,
    wait_s: float,
    complete: bool = False,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Verification:
    """Compare the stores of these RAEs (serial → file) with the database. Blocks one round, or up to ``wait_s``.

    A session that was found equal once is not looked at again: while devices change, there is no instant at which all
    of them have arrived. ``connection`` is in autocommit. ``complete`` = there are no other RAEs: one in the database
    that has no store is a phantom.

    Raises:
        StoreError: A store cannot be read.
        psycopg.Error: The database does not answer.
    """
    begun_s = now()
    found: dict[str, list[Difference]] = {}
    compared: dict[str, int] = {}
    committed: dict[str, int] = {}
    open_questions = dict(stores)
    settled: dict[str, set[str]] = {rae: set() for rae in stores}
    while True:
        for rae, path in list(open_questions.items()):
            before = read_store(rae, path)
            rows = query.rows_of_rae(connection, rae)
            after = read_store(rae, path)
            found[rae] = [each for each in judge(before, rows, after) if each.session not in settled[rae]]
            compared[rae] = len(after.keys() | rows.keys())
            settled[rae] |= (after.keys() | rows.keys()) - {difference.session for difference in found[rae]}
            committed[rae] = sum(device.rev for device in after.values())
            if not found[rae]:
                del open_questions[rae]
        if not open_questions or now() - begun_s >= wait_s:
            break
        sleep(_ROUND_S)
    if complete:
        found |= {one.rae: [_phantom(one.rae)] for one in query.raes(connection) if one.rae not in stores}
    return _summary(found, compared, committed, now() - begun_s)


def _phantom(rae: str) -> Difference:
    return Difference(rae=rae, session="all", kind="phantom", field="rae", edge="no store", cloud="in the database")


def judge(before: Sessions, rows: Mapping[str, DeviceRow], after: Sessions) -> Iterable[Difference]:
    """What differs of one RAE, with its store read before and after the rows. Pure."""
    for session in sorted(before.keys() | rows.keys() | after.keys()):
        first, last = before.get(session), after.get(session)
        row = rows.get(session)
        differences = compare(last, row)
        if differences and (first is None) == (last is None) and _position(first) == _position(last):
            yield from differences
        elif differences:
            rae = (last or first or row).rae  # type: ignore[union-attr] # one of the three has it
            said = [str(each.rev) if each is not None else "none" for each in (first, last)]
            cloud = "none" if row is None else str(row.rev)
            yield Difference(
                rae=rae, session=session, kind="unsettled", field="rev", edge=" → ".join(said), cloud=cloud
            )


def read_store(rae: str, path: Path) -> dict[str, EdgeRecord]:
    """All device sessions of one store, by id."""
    return {
        device.session: EdgeRecord(
            rae=rae,
            session=device.session,
            epoch=device.epoch,
            rev=device.rev,
            record=device.record,
            closed=device.closed,
        )
        for device in read_devices(path)
    }


def _position(record: EdgeRecord | None) -> tuple[object, ...] | None:
    return None if record is None else record.position


def _summary(
    found: Mapping[str, Sequence[Difference]], compared: Mapping[str, int], committed: Mapping[str, int], seconds: float
) -> Verification:
    differences = [difference for rae in sorted(found) for difference in found[rae]]
    kinds: dict[tuple[str, str], set[str]] = {}
    for difference in differences:
        kinds.setdefault((difference.rae, difference.session), set()).add(difference.kind)
    counts = dict.fromkeys(("missing", "wrong", "phantom", "unsettled"), 0)
    for of_session in kinds.values():
        # What is behind also differs in other fields: it is missing, not wrong.
        counts[next(kind for kind in counts if kind in of_session)] += 1
    return Verification(
        raes=len(found),
        compared=sum(compared.values()),
        committed=sum(committed.values()),
        missing=counts["missing"],
        wrong=counts["wrong"],
        phantoms=counts["phantom"],
        unsettled=counts["unsettled"],
        differences=differences,
        seconds=seconds,
    )
