"""The store: all of a transaction or nothing, numbers that survive, damage that is named."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from dmpd.local_registry.outbox import Row
from dmpd.local_registry.store import (
    DATABASE_NAME,
    Commit,
    DeviceWrite,
    Store,
    StoreCorruptError,
    StoreError,
    StoreTooNewError,
    committed_total,
    read_devices,
    set_aside,
)
from dmpd.model.record import DeviceRecord

RECORD = msgspec.json.encode(DeviceRecord(name="tv"))


def session(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


def row(seq: int, number: int = 1, kind: str = "change", size: int = 10) -> Row:
    return Row(seq, session(number), kind, 7, 1000 + seq, bytes(size))


def device(number: int, rev: int, closed: str | None = None) -> DeviceWrite:
    return DeviceWrite(session(number), 7, rev, 1, RECORD, closed, 5 if closed else None)


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(
        Commit(
            devices=[device(1, 3), device(2, 4, closed="left")],
            rows=[row(1), row(2, 2)],
            meta={"epoch": "7", "boot_id": "b", "seq_limit": "1000", "sent_through": "500", "run": "9"},
        )
    )
    store.close()
    loaded = Store(tmp_path).load()
    assert (loaded.epoch, loaded.boot_id, loaded.seq_next, loaded.sent_through, loaded.run) == (7, "b", 1001, 500, 9)
    assert [(one.session, one.rev, one.record.name) for one in loaded.devices] == [(session(1), 3, "tv")]
    assert (loaded.outbox_rows, loaded.outbox_bytes) == (2, 20)
    assert committed_total(tmp_path / DATABASE_NAME) == 7
    assert [(one.rev, one.closed) for one in read_devices(tmp_path / DATABASE_NAME)] == [(3, None), (4, "left")]


def test_a_commit_is_flushed_to_the_disk(tmp_path: Path) -> None:
    """No kill shows it, only a power cut would: FULL (2) flushes the write-ahead log with each commit."""
    store = Store(tmp_path)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_seq_never_goes_back_even_if_the_block_was_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(Commit(rows=[row(40)]))
    assert store.load().seq_next == 41


def test_superseded_takes_only_the_unsent_replaceable_rows_of_that_session(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = [row(1), row(2), row(3, kind="event"), row(4), row(5, number=2), row(6, kind="checkpoint")]
    store.commit(Commit(rows=rows))
    deleted = store.commit(Commit(superseded=[(session(1), 1)], rows=[row(7, kind="checkpoint")]))
    assert deleted == (3, 30)
    assert [one.seq for one in store.rows_after(0, rows_max=99, bytes_max=9999)] == [1, 3, 5, 7]


def test_forgotten_session_leaves_no_trace(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(Commit(rows=[row(1), row(2, 2)], devices=[device(1, 1), device(2, 1)]))
    assert store.commit(Commit(forgotten=[session(1)])) == (1, 10)
    assert [one.session for one in store.load().devices] == [session(2)]


def test_rows_come_in_order_within_both_bounds_and_at_least_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(Commit(rows=[row(seq, size=100) for seq in range(1, 11)]))
    assert [one.seq for one in store.rows_after(2, rows_max=3, bytes_max=9999)] == [3, 4, 5]
    assert [one.seq for one in store.rows_after(0, rows_max=9, bytes_max=250)] == [1, 2]
    assert [one.seq for one in store.rows_after(0, rows_max=9, bytes_max=1)] == [1]
    assert store.rows_after(10, rows_max=9, bytes_max=999) == []


def test_backlogs_and_events_count_only_what_is_unsent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(Commit(rows=[row(1), row(2), row(3), row(4, 2), row(5, kind="event"), row(6, kind="event")]))
    backlogs, events = store.backlogs(1)
    assert sorted(backlogs) == [(session(1), 2, 20, 1002), (session(2), 1, 10, 1004)]
    assert events == 2
    assert store.drop_events(1, 1) == (1, 10)
    assert [one.seq for one in store.rows_after(4, rows_max=9, bytes_max=999)] == [6]


def test_sessions_in_outbox_leaves_out_those_that_close(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rae_event = Row(5, "rae", "event", 7, 0, b"x")
    store.commit(Commit(rows=[row(1), row(2, 2), row(3, 2, kind="closed"), rae_event]))
    assert store.sessions_in_outbox() == [session(1)]


def test_full_disk_refuses_the_whole_transaction_and_recovers(tmp_path: Path) -> None:
    store = Store(tmp_path, pages_max=40)
    seq = 0
    with pytest.raises(StoreError, match="full"):  # noqa: PT012 - until the disk is full
        while True:
            seq += 1
            store.commit(Commit(rows=[row(seq, size=3000)], devices=[device(1, seq)]))
    rows = store.rows_after(0, rows_max=999, bytes_max=1 << 30)
    assert [one.seq for one in rows] == list(range(1, seq))
    assert store.committed_total() == seq - 1
    store.commit(Commit(durable=[one.seq for one in rows]))
    store.commit(Commit(rows=[row(seq, size=3000)], devices=[device(1, seq)]))
    assert store.committed_total() == seq


@pytest.mark.parametrize("damage", ["garbage", "header", "middle"])
def test_damage_is_named_and_can_be_set_aside(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    for seq in range(1, 400):
        store.commit(Commit(rows=[row(seq, number=seq, size=900)], devices=[device(seq, 1)]))
    store.close()
    path = tmp_path / DATABASE_NAME
    content = bytearray(path.read_bytes())
    if damage == "garbage":
        content = bytearray(b"not a database at all" * 1000)
    elif damage == "header":
        content[0:16] = b"X" * 16
    else:
        for start in range(4096, len(content), 4096):
            content[start : start + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError):
        Store(tmp_path).load()
    place = set_aside(tmp_path, "20261125000000")
    assert place is not None
    assert place.exists()
    assert not path.exists()
    assert Store(tmp_path).load().devices == []


def test_only_three_damaged_files_are_kept(tmp_path: Path) -> None:
    for number in range(6):
        Store(tmp_path).close()
        set_aside(tmp_path, f"2026112500000{number}")
    assert len(list(tmp_path.glob("*.damaged-*"))) == 3


def test_later_schema_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreTooNewError):
        Store(tmp_path)


def test_absent_file_is_an_error_for_readers_not_a_new_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        committed_total(tmp_path / DATABASE_NAME)
    assert list(tmp_path.iterdir()) == []
