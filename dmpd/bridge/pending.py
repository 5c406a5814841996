"""Requests on their way to RAEs: which to send now, which again, which are over. Pure; ``now_s`` is monotonic.

A PUBACK is no delivery: 0x00 also comes when the RAE's link is half open, or when somebody else listens. So a request
is repeated until a response to it was seen in Kafka. Rules, each per RAE, so that an absent one holds up no other:

- In the order of ``dmp.cmd``, at most ``WINDOW`` unanswered at a time.
- A RAE that leaves requests unanswered for 2 s gets its unanswered ones again, oldest first, as one round; 2 s doubling
  to 30 s. Until it answers, new ones wait for their turn in the next round: they must not overtake.
- An answer to any request ends that: what waits goes at once.
- Over ``per_rae_max`` waiting requests, further ones are refused at once.
"""

import heapq
from collections.abc import Iterable
from typing import Final, NamedTuple

WINDOW: Final = 16
"""Within a RAE's Receive Maximum of 20, so that its own acknowledgements have room."""
AGAIN_FIRST_S: Final = 2.0
AGAIN_MAX_S: Final = 30.0
GRACE_S: Final = 2.0
"""After the lifetime, for the RAE's answer to come through, before ``expired`` is said in its place."""


class Key(NamedTuple):
    """What names a request."""

    rae: str
    requester: str
    id: str


class Place(NamedTuple):
    """A record of ``dmp.cmd``."""

    partition: int
    offset: int


class PendingRequest(NamedTuple):
    """One record of ``dmp.cmd`` that is to be sent."""

    key: Key
    place: Place
    session: str
    topic: str
    payload: bytes
    lifetime_s: int
    deadline_s: float


class _Waiting:
    __slots__ = ("request", "sent", "turn")

    def __init__(self, request: PendingRequest, *, turn: bool) -> None:
        self.request = request
        self.turn = turn
        """Whether it may be sent; one that came in the middle of a round waits for the next."""
        self.sent = False
        """In the present round."""


class _Rae:
    __slots__ = ("again_at_s", "again_s", "rounds", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Place, _Waiting] = {}
        self.rounds = 0
        """Rounds without an answer."""
        self.again_s = AGAIN_FIRST_S
        self.again_at_s: float | None = None
        """When the next round begins; None = nothing was sent."""


class Pending:
    """All requests that are neither answered nor over. Not thread-safe; nothing blocks.

    Cost: ``due`` looks at each RAE that has any, the rest is O(log n) per request.
    """

    def __init__(self, *, per_rae_max: int) -> None:
        self._per_rae_max = per_rae_max
        self._raes: dict[str, _Rae] = {}
        self._by_key: dict[Key, list[PendingRequest]] = {}
        self._deadlines: list[tuple[float, Place, PendingRequest]] = []
        self._live: set[Place] = set()
        self.repeated = 0
        """Requests sent more than once, counted each time."""

    def __len__(self) -> int:
        return len(self._live)

    def add(self, request: PendingRequest) -> bool:
        """Take in a record; False if its RAE has too many already, and it is not taken."""
        rae = self._raes.setdefault(request.key.rae, _Rae())
        if len(rae.waiting) >= self._per_rae_max:
            return False
        rae.waiting[request.place] = _Waiting(request, turn=rae.rounds == 0 or rae.again_at_s is None)
        self._by_key.setdefault(request.key, []).append(request)
        self._live.add(request.place)
        heapq.heappush(self._deadlines, (request.deadline_s + GRACE_S, request.place, request))
        return True

    def answered(self, key: Key, now_s: float) -> list[Place]:
        """A response to ``key`` is in Kafka; returns the records that are done by it (several if it was repeated)."""
        requests = self._by_key.pop(key, [])
        for request in requests:
            self._remove(request)
        rae = self._raes.get(key.rae)
        if rae is not None and requests:
            rae.rounds, rae.again_s = 0, AGAIN_FIRST_S
            for one in rae.waiting.values():
                one.turn = True
            rae.again_at_s = now_s + AGAIN_FIRST_S if any(one.sent for one in rae.waiting.values()) else None
        return [request.place for request in requests]

    def over(self, now_s: float) -> list[PendingRequest]:
        """Take out what nobody answered in its lifetime and the grace after it."""
        found = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            request = heapq.heappop(self._deadlines)[2]
            if request.place not in self._live:
                continue
            found.append(request)
            same = self._by_key[request.key]
            same.remove(request)
            if not same:
                del self._by_key[request.key]
            self._remove(request)
        return found

    def due(self, now_s: float, *, raes: Iterable[str] | None = None, room: int) -> list[PendingRequest]:
        """What is to be published now, in order per RAE; it counts as sent.

        Args:
            now_s: What is past its deadline is not sent any more.
            raes: Look at these only; None = at all.
            room: At most so many.
        """
        found: list[PendingRequest] = []
        for name in list(self._raes) if raes is None else raes:
            rae = self._raes.get(name)
            if rae is not None and len(found) < room:
                found += self._due_of(rae, now_s, room - len(found))
        return found

    def unsent(self, request: PendingRequest) -> None:
        """It could not be handed to the broker after all: it goes with its RAE's next round."""
        rae = self._raes.get(request.key.rae)
        if rae is not None and request.place in rae.waiting:
            rae.waiting[request.place].sent = False

    def _due_of(self, rae: _Rae, now_s: float, room: int) -> list[PendingRequest]:
        if rae.again_at_s is not None and now_s >= rae.again_at_s:
            for one in rae.waiting.values():
                self.repeated += one.sent
                one.sent, one.turn = False, True
            rae.rounds += 1
            rae.again_s = min(AGAIN_MAX_S, AGAIN_FIRST_S * 2.0**rae.rounds)
            rae.again_at_s = None
        flying = sum(one.sent for one in rae.waiting.values())
        found: list[PendingRequest] = []
        for one in rae.waiting.values():
            if flying >= WINDOW or len(found) >= room:
                break
            if one.turn and not one.sent and now_s < one.request.deadline_s:
                one.sent = True
                flying += 1
                found.append(one.request)
        if rae.again_at_s is None and flying:
            rae.again_at_s = now_s + rae.again_s
        return found

    def _remove(self, request: PendingRequest) -> None:
        self._live.discard(request.place)
        rae = self._raes[request.key.rae]
        rae.waiting.pop(request.place, None)
        if not rae.waiting:
            del self._raes[request.key.rae]


class Frontier:
    """Up to where ``dmp.cmd`` is done, per partition: the offset to commit. Pure."""

    def __init__(self) -> None:
        self._open: dict[int, dict[int, None]] = {}
        """Offsets taken and not done, ascending, by partition."""
        self._next: dict[int, int] = {}
        self._told: dict[int, int] = {}

    def taken(self, place: Place) -> None:
        """The next record of its partition was read."""
        self._open.setdefault(place.partition, {})[place.offset] = None
        self._next[place.partition] = place.offset + 1

    def done(self, place: Place) -> None:
        self._open[place.partition].pop(place.offset, None)

    def to_commit(self) -> dict[int, int]:
        """The next offsets that changed since the last call."""
        found = {}
        for number, following in self._next.items():
            position = next(iter(self._open[number]), following)
            if self._told.get(number) != position:
                self._told[number] = found[number] = position
        return found

    def again(self) -> None:
        """Give all of them with the next ``to_commit``: a commit may have been lost."""
        self._told.clear()
