"""What requests do to the RAE itself: the engine's parts under the names that ``verbs`` knows. Nothing blocks."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from dmpd.local_registry.device_control import Target
from dmpd.local_registry.journal import Journal
from dmpd.local_registry.registry import Registry
from dmpd.local_registry.request_rules import RefusedError
from dmpd.local_registry.store import StoreError
from dmpd.local_registry.uplink import Uplink
from dmpd.local_registry.verbs import FailedError
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.record import Attributes

CAUSE: Final = "request"


class RaeActions:
    """Satisfies ``verbs.Rae``. ``probe`` provokes a sign of life of (ip, mac)."""

    def __init__(
        self, registry: Registry, journal: Journal, uplink: Uplink, *, probe: Callable[[str, str | None], None]
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._uplink = uplink
        self._probe = probe

    @property
    def device_count(self) -> int:
        return len(self._registry.devices)

    def has_session(self, session: str) -> bool:
        return self._registry.is_open(session)

    def target(self, session: str) -> Target:
        """Where the device is, and all MACs by which it may be woken: its interfaces', and the one it told by SSDP."""
        device = self._registry.devices.get(session)
        if device is None:
            return Target(None, ())
        macs = [one.mac for one in device.record.interfaces]
        told = _wakeup_mac(device.record.attributes)
        if told is not None and told not in macs:
            macs.append(told)
        return Target(device.ip, tuple(macs))

    def send_checkpoint(self, session: str) -> bool:
        return self._uplink.say_checkpoint(session, CAUSE) and self._pumped()

    def send_all_checkpoints(self) -> int | None:
        """How many are sent; None = nothing gets through."""
        sessions: Sequence[str] = self._registry.open_sessions()
        sent = sum(self._uplink.say_checkpoint(session, CAUSE) for session in sessions)
        self._pumped()
        return sent if sent == len(sessions) else None

    def set_attributes(self, session: str, values: Attributes, unset: tuple[str, ...]) -> None:
        try:
            self._registry.set_attributes(session, values, unset)
        except InvalidMessageError as error:
            raise RefusedError(error.detail) from error

    def forget(self, session: str) -> bool:
        """Close it; its device is asked for a sign of life, by which it is onboarded anew."""
        target = self.target(session)
        held = self._registry.forget(session)
        if held and target.ip is not None:
            self._probe(target.ip, target.macs[0] if target.macs else None)
        return held

    def probe(self, session: str) -> None:
        target = self.target(session)
        if target.ip is None:
            raise FailedError("no address of this device is known")
        self._probe(target.ip, target.macs[0] if target.macs else None)

    def seen_since(self, session: str, since_s: float) -> bool | None:
        device = self._registry.devices.get(session)
        return False if device is None else device.presence.seen_since(since_s)

    def state(self, session: str) -> str:
        device = self._registry.devices.get(session)
        return "unknown" if device is None else device.record.state

    async def raise_epoch(self, refused: int, above: int) -> bool:
        try:
            return await self._journal.raise_epoch(refused=refused, above=above)
        except StoreError as error:
            raise FailedError(f"the store does not take it: {error}") from error

    def _pumped(self) -> bool:
        self._uplink.pump()
        return True


class _Wakeup(msgspec.Struct):
    mac: str


def _wakeup_mac(attributes: Attributes) -> str | None:
    raw = attributes.get("wakeup")
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=_Wakeup).mac.lower()
    except msgspec.ValidationError:  # an attribute of that name that somebody else set
        return None
