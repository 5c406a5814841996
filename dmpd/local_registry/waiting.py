"""Devices that just arrived wait a moment before they are onboarded, for their ESN: it may say who they are. Pure.

A known device under a new MAC would otherwise become a new session first, and that one end as ``merged``.
"""

from typing import Final

from dmpd.local_registry.source import Evidence

DEVICES_MAX: Final = 256
"""Waiting at once; beyond, devices are onboarded without."""
EVIDENCE_MAX: Final = 16


class WaitingRoom:
    """Holds evidence of unknown MACs that arrived, at most ``wait_s`` each. ``now_s`` is monotonic.

    Invariant: evidence of one MAC leaves in the order in which it came, but for the ESN, which goes first.
    """

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self._held: dict[str, tuple[float, list[Evidence]]] = {}

    def admit(self, evidence: Evidence, now_s: float, *, known: bool) -> list[Evidence]:
        """Take in evidence; ``known`` = its MAC leads to a session. Returns what is to be observed now."""
        mac = evidence.mac
        if mac is None:
            return [evidence]
        until_s, held = self._held.get(mac, (0.0, []))
        if not held:
            waits = self.wait_s > 0 and evidence.arrived and evidence.esn is None and not known
            if not waits or len(self._held) >= DEVICES_MAX:
                return [evidence]
            self._held[mac] = now_s + self.wait_s, [evidence]
            return []
        if evidence.esn is not None:
            del self._held[mac]
            return [evidence, *held]
        held.append(evidence)
        if evidence.gone or now_s >= until_s or len(held) >= EVIDENCE_MAX:
            del self._held[mac]
            return held
        return []

    def due(self, now_s: float) -> list[Evidence]:
        """What has waited long enough."""
        found: list[Evidence] = []
        for mac, (until_s, held) in list(self._held.items()):
            if now_s >= until_s:
                del self._held[mac]
                found += held
        return found
