"""The registry: evidence in, transactions out; what each message says, and what is never said at all."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

from msgspec import Raw

from dmpd.local_registry.engine import Engine
from dmpd.local_registry.identity import Holder, IdentityFile
from dmpd.local_registry.outbox import Row
from dmpd.local_registry.planning import Occasion, Plan
from dmpd.local_registry.registry import Registry
from dmpd.local_registry.settings import PresenceSettings
from dmpd.local_registry.source import Evidence
from dmpd.local_registry.store import StoredDevice
from dmpd.local_registry.uplink import Uplink
from dmpd.model.codec import decode
from dmpd.model.messages import Change, Checkpoint, Closed, Event, Message
from dmpd.model.record import DeviceRecord
from dmpd.model.topics import Topic

AT = datetime(2026, 1, 2, tzinfo=UTC)
MAC = "3c:12:aa:00:00:01"
OTHER = "3c:12:aa:00:00:02"


def registry(**rules: float) -> Registry:
    numbers = itertools.count(1)
    return Registry(
        "R1",
        rules=PresenceSettings(**rules),  # type: ignore[arg-type]
        new_session=lambda: f"00000000-0000-0000-0000-{next(numbers):012d}",
        random=lambda: 0.5,
    )


class Disk:
    """Commits plans as a store would, and numbers the rows."""

    def __init__(self, devices: Registry, epoch: int = 5) -> None:
        self.devices = devices
        self.epoch = epoch
        self.seq = 0
        self.loaded_through = 0

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def plan(self) -> Plan:
        return self.devices.plan(Occasion("R1", self.epoch, AT, self.next_seq, self.loaded_through))

    def commit(self) -> list[Message]:
        plan = self.plan()
        self.devices.committed(plan)
        return [decode(row.payload, Topic("R1", row.session, "info")) for row in plan.commit.rows]


def see(devices: Registry, now_s: float = 0.0, **what: object) -> None:
    given: dict[str, object] = {"source": "test", "seen_at_s": now_s, "mac": MAC, "reach": "up", **what}
    devices.observe(Evidence(**given), now_s=now_s, at=AT)  # type: ignore[arg-type]


def test_first_row_of_a_session_is_a_checkpoint_then_changes_say_only_what_changed() -> None:
    devices = registry()
    disk = Disk(devices)
    see(devices, esn="E1", ip="10.0.0.1")
    (onboarding,) = disk.commit()
    assert isinstance(onboarding, Checkpoint)
    assert (onboarding.rev, onboarding.seq, onboarding.record.state, onboarding.cause) == (1, 1, "online", "onboarded")
    see(devices, attributes={"test_state": b'"in_test"'})
    (change,) = disk.commit()
    assert isinstance(change, Change)
    assert (change.rev, change.seq) == (2, 2)
    assert isinstance(change.patch.attributes, dict)
    assert set(change.patch.attributes) == {"test_state"}
    assert not devices.pending


def test_what_changes_back_before_the_commit_is_no_revision() -> None:
    devices = registry()
    disk = Disk(devices)
    see(devices, attributes={"a": b"1"})
    disk.commit()
    see(devices, attributes={"a": b"2"})
    see(devices, attributes={"a": b"1"})
    assert disk.commit() == []
    assert not devices.pending


def test_failed_commit_is_planned_again_with_what_came_since() -> None:
    devices = registry()
    disk = Disk(devices)
    see(devices, attributes={"a": b"1"})
    disk.plan()
    see(devices, attributes={"b": b"2"})
    (onboarding,) = disk.commit()
    assert isinstance(onboarding, Checkpoint)
    assert (onboarding.rev, set(onboarding.record.attributes)) == (1, {"a", "b"})


def test_change_during_a_commit_is_not_lost() -> None:
    devices = registry()
    disk = Disk(devices)
    see(devices, attributes={"a": b"1"})
    plan = disk.plan()
    see(devices, attributes={"a": b"2"})
    devices.committed(plan)
    (change,) = disk.commit()
    assert isinstance(change, Change)
    assert change.rev == 2


def test_first_row_of_another_epoch_is_a_checkpoint() -> None:
    devices = registry()
    disk = Disk(devices)
    see(devices)
    disk.commit()
    disk.epoch = 6
    see(devices, attributes={"a": b"1"})
    (message,) = disk.commit()
    assert isinstance(message, Checkpoint)
    assert (message.rev, message.epoch) == (2, 6)


def test_onboarding_never_sent_goes_with_its_close_without_a_word() -> None:
    devices = registry(leave_after_s=1)
    disk = Disk(devices)
    see(devices)
    disk.commit()
    see(devices, gone=True)
    disk.commit()
    list(devices.tick(10.0))
    plan = disk.plan()
    assert plan.commit.forgotten == ["00000000-0000-0000-0000-000000000001"]
    assert plan.commit.rows == []
    assert devices.committed(plan) == -2
    assert devices.devices == {}


def test_close_of_a_sent_session_says_so_and_replaces_its_unsent_changes() -> None:
    devices = registry(leave_after_s=1)
    disk = Disk(devices)
    see(devices)
    disk.commit()
    disk.loaded_through = 1
    see(devices, gone=True)
    disk.commit()
    list(devices.tick(10.0))
    plan = disk.plan()
    (row,) = plan.commit.rows
    closed = decode(row.payload, Topic("R1", row.session, "info"))
    assert isinstance(closed, Closed)
    assert (closed.rev, closed.reason) == (3, "left")
    assert plan.commit.superseded == [(row.session, 1)]
    devices.committed(plan)
    see(devices, now_s=20.0)
    (again,) = disk.commit()
    assert again.session != row.session


def test_merge_closes_the_newcomer_in_favour_of_the_older() -> None:
    devices = registry(grace_s=10)
    disk = Disk(devices)
    see(devices, esn="E1", attributes={"a": b"1"})
    see(devices, now_s=50.0, reach="down")
    disk.commit()
    see(devices, now_s=100.0, mac=OTHER, hostname="tv", attributes={"a": b"2"})
    disk.commit()
    disk.loaded_through = disk.seq
    see(devices, now_s=101.0, mac=OTHER, esn="E1")
    messages = disk.commit()
    closed = next(one for one in messages if isinstance(one, Closed))
    change = next(one for one in messages if isinstance(one, Change))
    assert (closed.reason, closed.successor) == ("merged", change.session)
    assert isinstance(change.patch.interfaces, tuple)
    assert [(one.mac, one.hostname) for one in change.patch.interfaces] == [(OTHER, "tv")]


def test_an_old_lease_does_not_bring_a_former_interface_back() -> None:
    devices = registry(grace_s=10)
    disk = Disk(devices)
    see(devices, esn="E1")
    see(devices, now_s=50.0, reach="down")
    disk.commit()
    see(devices, now_s=100.0, mac=OTHER, esn="E1")
    disk.commit()
    see(devices, now_s=101.0, reach=None, ip="10.0.0.1", hostname="before")
    assert disk.commit() == []
    see(devices, now_s=102.0, ip="10.0.0.1")
    (change,) = disk.commit()
    assert isinstance(change, Change)
    assert isinstance(change.patch.interfaces, tuple)
    assert sorted(one.mac for one in change.patch.interfaces) == sorted([MAC, OTHER])


def test_conflict_is_an_event_of_the_claimant() -> None:
    devices = registry()
    disk = Disk(devices)
    see(devices, esn="E1")
    see(devices, mac=OTHER, esn="E1")
    messages = disk.commit()
    (event,) = [one for one in messages if isinstance(one, Event)]
    assert event.code == "identity_conflict"
    assert bytes(event.detail["esn"]) == b'"E1"'


def test_change_that_the_cloud_would_refuse_costs_itself() -> None:
    devices = registry()
    disk = Disk(devices)
    see(devices)
    disk.commit()
    see(devices, attributes={"bad": b'"\\u0000"'})
    assert disk.commit() == []
    assert not devices.pending
    see(devices, attributes={"good": b"1"})
    (change,) = disk.commit()
    assert isinstance(change, Change)
    assert change.rev == 2


def test_record_too_large_to_checkpoint_is_refused() -> None:
    devices = registry()
    disk = Disk(devices)
    see(devices)
    disk.commit()
    for number in range(20):
        see(devices, attributes={f"a{number}": b'"' + b"x" * 16_000 + b'"'})
        disk.commit()
    (device,) = devices.devices.values()
    assert 10 < len(device.record.attributes) < 17


def test_record_too_large_with_its_numbers_written_out_is_refused() -> None:
    devices = registry()
    disk = Disk(devices)
    for number in range(20):
        see(
            devices,
            attributes={f"a{number}": b"[" + b"1e300," * 49 + b"1]", f"b{number}": b"[" + b"1e300," * 60 + b"1]"},
        )
        disk.commit()
    (device,) = devices.devices.values()
    assert device.stored is not None
    assert {name[0] for name in device.stored.attributes} == {"a"}, "no value over its bound"
    assert 10 < len(device.stored.attributes) < 18
    Disk(devices, epoch=6)
    devices.want_checkpoint_rows([device.session], supersede=False)
    assert isinstance(disk.commit()[0], Checkpoint)


def test_stored_records_over_a_limit_of_today_are_cut_and_said_anew() -> None:
    """Else no checkpoint of the session would ever be sent, and every change after a restart would be refused."""
    devices = registry()
    huge = {f"h{number}": Raw(b"[" + b"1e308," * 2700 + b"1]") for number in range(15)}
    large = {f"l{number}": Raw(b'"' + b"x" * 15_000 + b'"') for number in range(18)}
    record = DeviceRecord(state="online", esn="\U0001f600" * 1000, attributes={"a": Raw(b"1"), **huge, **large})
    session = "00000000-0000-0000-0000-00000000000a"
    stored = StoredDevice(session=session, epoch=5, rev=7, first_seq=1, record=record)
    devices.restore([stored], IdentityFile(holders=[Holder(session=session, esn="E1", macs=[MAC])]), 0.0)
    said = devices.checkpoint(session, epoch=6, at=AT)
    assert said is not None
    assert Engine.checkpoint(SimpleNamespace(registry=devices, journal=SimpleNamespace(epoch=6)), session, "x") is None  # type: ignore[arg-type]
    disk = Disk(devices, epoch=6)
    (checkpoint,) = disk.commit()
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.rev == 8
    assert checkpoint.record.esn == "\U0001f600" * 512
    assert "a" in checkpoint.record.attributes
    assert not huge.keys() & checkpoint.record.attributes.keys()
    assert len(large.keys() & checkpoint.record.attributes.keys()) == 17
    see(devices, ip="10.0.0.1")
    (change,) = disk.commit()
    assert change.rev == 9  # type: ignore[union-attr]


def test_a_stored_row_over_a_limit_of_today_is_sent_under_the_new_epoch() -> None:
    """The cloud refuses it, sees what is missing and asks; to fail here would end the RAE at every start."""
    members = {"v": 1, "kind": "change", "rae": "R1", "session": "00000000-0000-0000-0000-00000000000a", "epoch": 5}
    payload = json.dumps(members | {"at": "2026-01-02T00:00:00Z", "rev": 3, "set": {"attributes": {"a": "N"}}})
    row = Row(3, str(members["session"]), "change", 5, 0, payload.replace('"N"', "0e-99999").encode())
    uplink = SimpleNamespace(_rae="R1", _epoch=6, _topic_of=lambda row: Topic("R1", row.session, "info"))
    sent = Uplink._stamped(uplink, row)  # type: ignore[arg-type]
    assert b"0e-99999" in sent
    assert json.loads(sent)["epoch"] == 6


def test_restart_knows_the_sessions_and_judges_nobody() -> None:
    devices = registry()
    stored = StoredDevice(
        session="00000000-0000-0000-0000-00000000000a",
        epoch=5,
        rev=7,
        first_seq=1,
        record=DeviceRecord(state="online", esn="E1"),
    )
    holder = Holder(session=stored.session, esn="E1", macs=[MAC])
    devices.restore([stored], IdentityFile(holders=[holder]), 0.0)
    disk = Disk(devices)
    see(devices, now_s=1.0, ip="10.0.0.1")
    (change,) = disk.commit()
    assert (change.session, change.rev) == (stored.session, 8)  # type: ignore[union-attr]


def test_lost_database_keeps_the_session_ids_and_never_takes_them_back() -> None:
    devices = registry(leave_after_s=1)
    holder = Holder(session="00000000-0000-0000-0000-00000000000a", esn="E1", macs=[MAC])
    devices.rebuild(IdentityFile(holders=[holder]), now_s=0.0, at=AT)
    disk = Disk(devices)
    (checkpoint,) = disk.commit()
    assert isinstance(checkpoint, Checkpoint)
    assert (checkpoint.session, checkpoint.record.esn, checkpoint.record.state) == (holder.session, "E1", "unknown")
    see(devices, gone=True)
    disk.commit()
    list(devices.tick(10.0))
    (closed,) = disk.commit()
    assert isinstance(closed, Closed), "the cloud knew it before the database was lost"


def test_lan_down_freezes_judgement_and_is_one_event() -> None:
    devices = registry(grace_s=10)
    disk = Disk(devices)
    see(devices)
    see(devices, mac=OTHER)
    disk.commit()
    devices.lan_down(now_s=1.0, at=AT, epoch=5)
    see(devices, now_s=2.0, reach="down")
    assert list(devices.tick(500.0)) == []
    (event,) = disk.commit()
    assert isinstance(event, Event)
    assert event.code == "lan_down"
    devices.lan_up(now_s=500.0, at=AT, epoch=5)
    assert all(device.record.state == "online" for device in devices.devices.values())


def test_probes_are_bounded_per_tick() -> None:
    devices = registry(probes_per_s=3)
    for number in range(10):
        see(devices, mac=f"3c:12:aa:00:01:{number:02x}", ip=f"10.0.0.{number + 1}")
    assert len(list(devices.tick(1000.0))) == 3


def test_roster_lists_only_what_is_committed() -> None:
    devices = registry()
    see(devices)
    assert devices.open_sessions() == []
    Disk(devices).commit()
    assert len(devices.open_sessions()) == 1


def test_events_beyond_the_bound_drop_the_oldest() -> None:
    devices = registry()
    for number in range(1100):
        devices.event(f"e{number}", at=AT, epoch=5)
    messages = Disk(devices).commit()
    assert (len(messages), devices.events_dropped) == (1000, 100)


def test_more_sessions_than_a_lan_can_have_are_not_onboarded(monkeypatch: Callable[..., None]) -> None:
    monkeypatch.setattr("dmpd.local_registry.registry.SESSIONS_MAX", 2)  # type: ignore[attr-defined]
    devices = registry()
    for number in range(5):
        see(devices, mac=f"3c:12:aa:00:01:{number:02x}")
    assert len(devices.devices) == 2
