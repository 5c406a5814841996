"""Which device session a piece of evidence belongs to. Pure: what is known is in memory, ``now_s`` is passed in.

Neither MAC nor ESN is a key, both change on pre-production devices. The device session is the key, and it is found by
its strongest evidence. A claim that a live holder contradicts moves nothing: it becomes a conflict event instead.
"""

from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct

from dmpd.local_registry.source import Evidence

CONFLICT_REPEAT_S: Final = 600.0
MACS_MAX: Final = 32


class Holder(Struct, kw_only=True):
    """What is known of one open device session's identity. This is what ``identity.json`` keeps."""

    session: str
    esn: str | None = None
    macs: list[str] = []
    client_id: str | None = None
    pinned: bool = False


class Conflict(Struct, frozen=True):
    """Two devices claim one ESN; nothing moved. ``session`` is where the claim was made, if it has one."""

    esn: str
    holder: str
    mac: str


class Resolution(Struct, frozen=True, kw_only=True):
    """Where evidence belongs.

    ``session`` None = to nobody (drop it). ``merged`` ends in favour of ``session``. ``disowned`` loses its ESN to
    ``session``. ``esn`` is what ``session`` may call its own from this evidence.
    """

    session: str | None
    verdict: Literal["known", "new", "moved", "dropped"]
    esn: str | None = None
    merged: str | None = None
    disowned: str | None = None
    conflict: Conflict | None = None


class IdentityBook:
    """All holders of one RAE with their indexes. Owned by the event loop.

    Invariants: a MAC, an ESN and a client id each lead to at most one open session.
    """

    def __init__(
        self,
        *,
        grace_s: float,
        new_session: Callable[[], str],
        is_present: Callable[[str], bool] = lambda session: False,
    ) -> None:
        self._grace_s = grace_s
        self._is_present = is_present
        """Whether a session's device is judged to be there: a quiet one need not give a sign within the grace."""
        self._new_session = new_session
        self.holders: dict[str, Holder] = {}
        self._seen_s: dict[str, float] = {}
        self._seen_mac: dict[str, str] = {}
        self._left: set[str] = set()
        """Sessions whose cable was pulled and that gave no sign of life since: as good as past their grace."""
        self._by_mac: dict[str, str] = {}
        self._by_esn: dict[str, str] = {}
        self._by_client: dict[str, str] = {}
        self._by_ip: dict[str, str] = {}
        self._conflicts: dict[tuple[str, str], float] = {}
        self.changed = False
        """Set when a holder's evidence changed; cleared by who wrote it down."""

    def restore(self, holder: Holder, now_s: float) -> None:
        """Take in what an earlier life knew. It counts as seen now: a restart gives nobody a right to its name."""
        self.holders[holder.session] = holder
        self._seen_s[holder.session] = now_s
        for mac in holder.macs:
            self._by_mac.setdefault(mac, holder.session)
        if holder.esn is not None:
            self._by_esn.setdefault(holder.esn, holder.session)
        if holder.client_id is not None:
            self._by_client.setdefault(holder.client_id, holder.session)

    def knows(self, mac: str) -> bool:
        """Whether ``mac`` leads to an open session."""
        return mac in self._by_mac

    def seen(self, session: str, now_s: float, *, mac: str | None = None) -> None:
        """The device of ``session`` gave a sign of life, at the interface ``mac`` if that is known."""
        self._seen_s[session] = now_s
        self._left.discard(session)
        if mac is not None:
            self._seen_mac[session] = mac

    def left(self, session: str, *, mac: str | None) -> None:
        """The port of ``mac`` lost its carrier. Who was last seen at another interface may be there all the same."""
        if self._seen_mac.get(session, mac) == mac:
            self._left.add(session)

    def forget(self, session: str) -> None:
        """The session ended: nothing leads to it any more."""
        self.holders.pop(session)
        self._seen_s.pop(session, None)
        self._seen_mac.pop(session, None)
        self._left.discard(session)
        for index in (self._by_mac, self._by_esn, self._by_client, self._by_ip):
            for key in [key for key, held in index.items() if held == session]:
                del index[key]

    def resolve(self, evidence: Evidence, now_s: float) -> Resolution:
        """Find, or found, the session of ``evidence`` and learn from it."""
        if evidence.mac is None:
            session = self._by_esn.get(evidence.esn or "") or self._by_ip.get(evidence.ip or "")
            if session is None:
                return Resolution(session=None, verdict="dropped")
            return self._claim(session, evidence, now_s, "known")
        known = self._by_mac.get(evidence.mac)
        if known is not None:
            return self._claim(known, evidence, now_s, "known")
        if evidence.gone or evidence.reach == "down":
            return Resolution(session=None, verdict="dropped")
        predecessor = self._predecessor(evidence, now_s)
        if predecessor is not None:
            return self._claim(predecessor, evidence, now_s, "moved")
        session = self._new_session()
        self.holders[session] = Holder(session=session)
        self._seen_s[session] = now_s
        return self._claim(session, evidence, now_s, "new")

    def _predecessor(self, evidence: Evidence, now_s: float) -> str | None:
        """The vanished session whose ESN, or else client id, an unknown MAC brings along."""
        for key, index in ((evidence.esn, self._by_esn), (evidence.client_id, self._by_client)):
            session = None if key is None else index.get(key)
            if session is not None and self._movable(session, now_s):
                esn = self.holders[session].esn
                if evidence.esn is None or esn is None or esn == evidence.esn:
                    return session
        return None

    def _claim(
        self, session: str, evidence: Evidence, now_s: float, verdict: Literal["known", "new", "moved"]
    ) -> Resolution:
        esn, conflict = evidence.esn, None
        merged = disowned = None
        other = None if esn is None else self._by_esn.get(esn)
        if esn is not None and other is not None and other != session:
            if not self._movable(other, now_s):
                conflict = self._conflict(esn, other, evidence.mac or "", now_s)
                esn = None
            elif self.holders[session].esn is None and not self.holders[session].pinned:
                # The vanished device came back under another MAC, before its ESN was known: the older session goes on.
                merged, session = session, other
                self._hand_over(merged, session)
                verdict = "moved"
            else:
                disowned = other
                self.holders[other].esn = None
                del self._by_esn[esn]
        self._learn(self.holders[session], evidence, esn)
        return Resolution(
            session=session, verdict=verdict, esn=esn, merged=merged, disowned=disowned, conflict=conflict
        )

    def _movable(self, session: str, now_s: float) -> bool:
        if self.holders[session].pinned:
            return False
        if session in self._left:
            return True
        return now_s - self._seen_s.get(session, now_s) > self._grace_s and not self._is_present(session)

    def _hand_over(self, loser: str, winner: str) -> None:
        macs = self.holders[loser].macs
        client_id = self.holders[loser].client_id
        self.forget(loser)
        holder = self.holders[winner]
        for mac in macs:
            self._add_mac(holder, mac)
        if client_id is not None and holder.client_id is None:
            holder.client_id = client_id
            self._by_client.setdefault(client_id, winner)

    def _learn(self, holder: Holder, evidence: Evidence, esn: str | None) -> None:
        if evidence.mac is not None and evidence.mac not in holder.macs:
            self._add_mac(holder, evidence.mac)
        if esn is not None and esn != holder.esn:
            if holder.esn is not None:
                self._by_esn.pop(holder.esn, None)
            holder.esn = esn
            self.changed = True
            self._by_esn[esn] = holder.session
        client_id = evidence.client_id
        if client_id is not None and client_id != holder.client_id and client_id not in self._by_client:
            if holder.client_id is not None:
                self._by_client.pop(holder.client_id, None)
            holder.client_id = client_id
            self.changed = True
            self._by_client[client_id] = holder.session
        if evidence.ip is not None:
            self._by_ip[evidence.ip] = holder.session

    def _add_mac(self, holder: Holder, mac: str) -> None:
        holder.macs.append(mac)
        self.changed = True
        self._by_mac[mac] = holder.session
        if len(holder.macs) > MACS_MAX:
            del self._by_mac[holder.macs.pop(0)]

    def _conflict(self, esn: str, holder: str, mac: str, now_s: float) -> Conflict | None:
        """The event of this conflict, or None while it was told less than ten minutes ago."""
        key = (esn, mac)
        if now_s - self._conflicts.get(key, -CONFLICT_REPEAT_S) < CONFLICT_REPEAT_S:
            return None
        if len(self._conflicts) >= 1000:
            self._conflicts.clear()
        self._conflicts[key] = now_s
        return Conflict(esn, holder, mac)


class IdentityFile(Struct, kw_only=True):
    """The content of ``identity.json``: enough to give a rebuilt database the same session ids."""

    epoch: int = 0
    holders: list[Holder] = []
