"""All devices of one RAE in memory: evidence in, transactions out. Pure; the engine moves time, disk and network.

A record here is ahead of the disk until its commit is confirmed. What is waiting is not a queue but a difference
(record against what is stored), so a full disk costs no memory and a failed commit is simply planned again.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from dmpd.local_registry import metrics
from dmpd.local_registry.identity import Holder, IdentityBook, IdentityFile, Resolution
from dmpd.local_registry.planning import RECORD_BYTES_MAX, Device, Occasion, Plan, plan_device, row_of, within_limits
from dmpd.local_registry.presence import Presence
from dmpd.local_registry.records import VendorOf, cleaned, learned, merged, new_record, no_vendor
from dmpd.local_registry.settings import PresenceSettings
from dmpd.local_registry.source import Evidence
from dmpd.local_registry.store import Commit, StoredDevice
from dmpd.model.codec import InvalidMessageError
from dmpd.model.limits import ATTRIBUTES_MAX
from dmpd.model.messages import Checkpoint, ClosedReason, Event
from dmpd.model.record import Attributes, DeviceRecord
from dmpd.model.strict import plain_bytes
from dmpd.model.topics import RAE_SESSION

SESSIONS_MAX: Final = 4096
EVENTS_PENDING_MAX: Final = 1000

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()


class Probe(NamedTuple):
    """A sign of life to provoke."""

    ip: str
    mac: str | None


class Registry:
    """The devices of one RAE. Owned by its event loop; nothing here blocks."""

    def __init__(
        self,
        rae: str,
        *,
        rules: PresenceSettings,
        new_session: Callable[[], str],
        random: Callable[[], float],
        vendor_of: VendorOf = no_vendor,
    ) -> None:
        self.rae = rae
        self._vendor_of = vendor_of
        self._rules = rules
        self._random = random
        self.identity = IdentityBook(grace_s=rules.grace_s, new_session=new_session, is_present=self._is_present)
        self.devices: dict[str, Device] = {}
        self._dirty: dict[str, None] = {}
        self._events: list[Event] = []
        self.events_dropped = 0
        self.lan_down_s: float | None = None
        self.identity_changed = False
        """Set when ``identity.json`` should be written: an onboarding, a close, another ESN or MAC."""

    def restore(self, stored: Sequence[StoredDevice], known: IdentityFile, now_s: float) -> None:
        """Begin with what the disk kept; every device is unknown until it is seen again."""
        holders: dict[str, Holder] = {holder.session: holder for holder in known.holders}
        for one in stored:
            presence = Presence(self._rules, now_s=now_s, random=self._random, state=one.record.state)
            device = Device(one.session, within_limits(one.record), presence)
            if device.record is not one.record:
                _log.warning("%s: the stored record was over a limit and is cut", one.session)
                self._dirty[one.session] = None
            device.stored, device.rev, device.epoch, device.first_seq = one.record, one.rev, one.epoch, one.first_seq
            device.ip = next((interface.ip4 for interface in one.record.interfaces if interface.ip4), None)
            self.devices[one.session] = device
            self.identity.restore(holders.get(one.session) or _holder_of(one), now_s)

    def rebuild(self, known: IdentityFile, *, now_s: float, at: datetime) -> None:
        """The database is lost: the sessions that ``identity.json`` names go on, with what it knows of them."""
        for holder in known.holders:
            self.identity.restore(holder, now_s)
            record = DeviceRecord(esn=holder.esn, first_seen=at, onboarded_at=at)
            for mac in holder.macs:
                evidence = cleaned(Evidence(source="identity", seen_at_s=now_s, mac=mac))
                if evidence is not None:
                    record = learned(record, evidence, esn=None, moved=False, vendor_of=self._vendor_of)
            device = Device(holder.session, record, Presence(self._rules, now_s=now_s, random=self._random))
            device.cause = "rebuilt"
            self.devices[holder.session] = device
            self._dirty[holder.session] = None

    def store_lost(self) -> None:
        """The database was lost while running: everything has to be written again."""
        for device in self.devices.values():
            device.stored, device.epoch, device.first_seq, device.cause = None, 0, 0, "rebuilt"
            device.fresh = False
            self._dirty[device.session] = None

    @property
    def pending(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._dirty or self._events)

    def observe(self, evidence: Evidence, *, now_s: float, at: datetime) -> None:
        """Take in one sighting."""
        sighting = cleaned(evidence)
        if sighting is None:
            metrics.evidence_dropped.inc()
            return
        if sighting.mac is not None and len(self.devices) >= SESSIONS_MAX and not self.identity.knows(sighting.mac):
            metrics.evidence_dropped.inc()
            return
        found = self.identity.resolve(sighting, now_s)
        if found.session is None:
            return
        if sighting.reach == "up":
            self.identity.seen(found.session, now_s, mac=sighting.mac)
        elif sighting.gone and sighting.port is not None:  # a port says so; a lease given back may be a forgery
            self.identity.left(found.session, mac=sighting.mac)
        if self._is_of_a_former_interface(found.session, sighting):
            return
        device = self._device_of(found, now_s=now_s, at=at)
        if sighting.ip is not None and (":" not in sighting.ip or device.ip is None):
            device.ip = sighting.ip
        moved = found.verdict == "moved" and found.merged is None  # a merged one brought its interfaces along
        device.record = learned(device.record, sighting, esn=found.esn, moved=moved, vendor_of=self._vendor_of)
        device.presence.observe(sighting, now_s)
        self._touched(device, cause=sighting.source)

    def lan_down(self, *, now_s: float, at: datetime, epoch: int) -> None:
        """The LAN itself is gone: one event instead of all devices offline."""
        if self.lan_down_s is None:
            self.lan_down_s = now_s
            self.event("lan_down", at=at, epoch=epoch)

    def lan_up(self, *, now_s: float, at: datetime, epoch: int) -> None:
        """The LAN is back; the time without it counts for nothing."""
        if self.lan_down_s is not None:
            for device in self.devices.values():
                device.presence.thaw(now_s - self.lan_down_s)
            self.lan_down_s = None
            self.event("lan_up", at=at, epoch=epoch)

    def tick(self, now_s: float) -> Iterator[Probe]:
        """Let time pass; yields the probes that are due, as many as the rate allows per call (one call a second)."""
        if self.lan_down_s is not None:
            return
        allowed = self._rules.probes_per_s
        for device in self.devices.values():
            if device.closing is not None:
                continue
            device.presence.tick(now_s)
            self._touched(device, cause="presence")
            since_s = device.presence.offline_since_s
            if since_s is not None and now_s - since_s >= self._rules.leave_after_s:
                self._close(device, "left")
            elif allowed and device.ip is not None and device.presence.probe_due(now_s):
                allowed -= 1
                yield Probe(device.ip, next((one.mac for one in device.record.interfaces), None))

    def event(self, code: str, *, at: datetime, epoch: int, session: str = RAE_SESSION, **detail: str | int) -> None:
        """Tell the operators something; over the bound the oldest is dropped and counted."""
        raw = {name: msgspec.Raw(_encoder.encode(value)) for name, value in detail.items()}
        self._events.append(Event(v=1, rae=self.rae, session=session, epoch=epoch, at=at, code=code, detail=raw))
        if len(self._events) > EVENTS_PENDING_MAX:
            del self._events[0]
            self.events_dropped += 1

    def plan(self, occasion: Occasion) -> Plan:
        """Turn everything that waits into one transaction.

        Returns:
            The plan; ``committed`` must be told if it became durable. Otherwise plan again.
        """
        commit, planned = Commit(), []
        for session in list(self._dirty):
            device = self.devices[session]
            if device.closing is not None and device.stored is None:  # it came and went between two commits
                del self.devices[session], self._dirty[session]
                continue
            try:
                one = plan_device(device, commit, occasion)
            except InvalidMessageError as error:
                self._refuse(device, error)
                continue
            if one is None:
                del self._dirty[session]
            else:
                planned.append(one)
        for event in self._events:
            seq = occasion.next_seq()
            commit.rows.append(row_of(replace(event, seq=seq, epoch=occasion.epoch), seq))
        return Plan(commit=commit, planned=planned, events=len(self._events), epoch=occasion.epoch)

    def committed(self, plan: Plan) -> int:
        """``plan`` is durable; returns how many revisions it brought."""
        del self._events[: plan.events]
        revisions = 0
        for device, record, rev, seq, closed, forgotten in plan.planned:
            if closed is not None or forgotten:
                del self.devices[device.session]
                self._dirty.pop(device.session, None)
                revisions += rev - device.rev if closed is not None else -device.rev
                self.identity_changed = True
                continue
            if device.stored is None:
                device.first_seq = seq if device.fresh else 0
                self.identity_changed = True
            revisions += rev - device.rev
            device.stored, device.rev, device.epoch = record, rev, plan.epoch
            device.wants_checkpoint = device.supersedes = False
            if device.record is record and device.closing is None:
                self._dirty.pop(device.session, None)
        return revisions

    def refused(self, plan: Plan) -> None:
        """The disk refused ``plan``, or says so: should it have kept it after all, a checkpoint outranks that row."""
        for one in plan.planned:
            one.device.wants_checkpoint = True

    def want_checkpoint_rows(self, sessions: Sequence[str], *, supersede: bool) -> list[str]:
        """Each open session of ``sessions`` gets a checkpoint row with the next commit; returns those not open.

        ``supersede`` deletes the unsent rows before it, which it makes needless.
        """
        others = []
        for session in sessions:
            device = self.devices.get(session)
            if device is None or device.closing is not None:
                others.append(session)
            else:
                device.wants_checkpoint = True
                device.supersedes = supersede
                self._dirty[session] = None
        return others

    def checkpoint(self, session: str, *, epoch: int, at: datetime, cause: str = "interval") -> Checkpoint | None:
        """A checkpoint of a session, of what is committed; None if it is not open or not yet committed."""
        device = self.devices.get(session)
        if device is None or device.stored is None:
            return None
        return Checkpoint(
            v=1,
            rae=self.rae,
            session=session,
            epoch=epoch,
            at=at,
            rev=device.rev,
            record=device.stored,
            cause=cause,
        )

    def set_attributes(self, session: str, values: Attributes, unset: Sequence[str]) -> None:
        """Set and take away attributes of an open session.

        Raises:
            InvalidMessageError: The record would break a limit; it is as before.
        """
        device = self.devices[session]
        attributes = {**device.record.attributes, **values}
        for name in unset:
            attributes.pop(name, None)
        if len(attributes) > ATTRIBUTES_MAX:
            raise InvalidMessageError("too_large", f"more than {ATTRIBUTES_MAX} attributes")
        record = replace(device.record, attributes=attributes)
        if plain_bytes(_encoder.encode(record)) > RECORD_BYTES_MAX:
            raise InvalidMessageError("too_large", f"a record of more than {RECORD_BYTES_MAX} bytes")
        device.record = record
        self._touched(device, cause="request")

    def forget(self, session: str) -> bool:
        """Close ``session`` as forgotten, so that its device is onboarded anew when it is seen; False if not open."""
        device = self.devices.get(session)
        if device is None or device.closing is not None:
            return False
        self._close(device, "forgotten")
        return True

    def is_open(self, session: str) -> bool:
        device = self.devices.get(session)
        return device is not None and device.closing is None

    def open_sessions(self) -> list[str]:
        """Committed open sessions, ascending: what rosters list."""
        return sorted(device.session for device in self.devices.values() if device.stored is not None)

    def identity_file(self, epoch: int) -> IdentityFile:
        held = self.identity.holders
        holders = [held[session] for session in self.open_sessions() if session in held]
        return IdentityFile(epoch=epoch, holders=[replace(holder, macs=list(holder.macs)) for holder in holders])

    def _is_of_a_former_interface(self, session: str, sighting: Evidence) -> bool:
        """A MAC that the device has no more, and that gave no sign of life: an old lease read again, for example."""
        device = self.devices.get(session)
        if device is None or sighting.mac is None or sighting.reach == "up":
            return False
        return all(one.mac != sighting.mac for one in device.record.interfaces) and bool(device.record.interfaces)

    def _is_present(self, session: str) -> bool:
        device = self.devices.get(session)
        return device is not None and device.presence.is_present

    def _device_of(self, found: Resolution, *, now_s: float, at: datetime) -> Device:
        assert found.session is not None
        device = self.devices.get(found.session)
        if device is None:
            presence = Presence(self._rules, now_s=now_s, random=self._random)
            device = self.devices[found.session] = Device(found.session, new_record(at), presence, fresh=True)
            device.cause = "onboarded"
        if found.merged is not None and found.merged in self.devices:
            loser = self.devices[found.merged]
            device.record = merged(device.record, loser.record)
            device.presence = loser.presence
            self._close(loser, "merged", successor=found.session, known=False)
        if found.disowned is not None and found.disowned in self.devices:
            other = self.devices[found.disowned]
            other.record = replace(other.record, esn=None, esn_source=None)
            self._touched(other, cause="identity")
        if found.conflict is not None:
            self.event(
                "identity_conflict",
                at=at,
                epoch=1,
                session=device.session,
                esn=found.conflict.esn,
                holder=found.conflict.holder,
                mac=found.conflict.mac,
            )
        return device

    def _touched(self, device: Device, *, cause: str) -> None:
        """Bring the published state into the record, and note whether it differs from what is stored."""
        if device.record.state != device.presence.state:
            device.record = replace(device.record, state=device.presence.state)
        if device.record is not device.stored and device.record != device.stored:
            self._dirty[device.session] = None
            if device.stored is not None:
                device.cause = cause

    def _close(self, device: Device, reason: ClosedReason, *, successor: str | None = None, known: bool = True) -> None:
        device.closing, device.successor = reason, successor
        self._dirty[device.session] = None
        if known:
            self.identity.forget(device.session)

    def _refuse(self, device: Device, error: InvalidMessageError) -> None:
        """What the cloud would refuse is not kept: the device falls back to what is stored."""
        metrics.changes_refused.inc()
        _log.warning("change of %s refused: %s", device.session, error)
        del self._dirty[device.session]
        if device.stored is None:
            del self.devices[device.session]
            self.identity.forget(device.session)
        else:
            device.record = device.stored


def _holder_of(stored: StoredDevice) -> Holder:
    """The identity of a stored device whose entry in ``identity.json`` is missing: what its record says."""
    interfaces = stored.record.interfaces
    client_id = next((one.client_id for one in interfaces if one.client_id), None)
    macs = [one.mac for one in interfaces]
    return Holder(session=stored.session, esn=stored.record.esn, macs=macs, client_id=client_id)
