"""What RAEs have to be told because of what they sent: ``epoch.raise`` and ``forget``. Pure.

The model's verdicts say so while a batch is judged; after it the worker emits one request for each, and not again
before its backoff is over, so that a replay of a million old records is a handful of requests. What the bucket has no
token for waits, and each RAE has its turn: one that never stops asking for more costs the others one turn in theirs.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from dmpd.cloud_registry.ask_book import AskBook
from dmpd.cloud_registry.turns import Turns
from dmpd.model.apply import EpochRaise
from dmpd.model.codec import encode
from dmpd.model.requests import REGISTRY, EpochRaiseArgs, ForgetArgs, request
from dmpd.model.topics import RAE_SESSION, cmd_topic
from dmpd.runtime.token_bucket import TokenBucket

FIRST_S: Final = 60.0
MAX_S: Final = 3600.0
PER_S: Final = 10.0
"""Of one worker. What is over it waits for its turn, within the bounds of ``Turns``: what finds no room there is not
asked, the RAE goes on sending what asks for it."""
BURST: Final = 50.0


class Judged(Protocol):
    """What is read of a verdict of ``model.apply`` or ``model.rae``."""

    @property
    def epoch_raise(self) -> EpochRaise | None: ...


class ToSay(NamedTuple):
    """One request, as a Kafka record of the topic of requests."""

    key: bytes
    value: bytes


class Asks:
    """Of one batch: told of every verdict, however often (a transaction may run twice)."""

    def __init__(self) -> None:
        self._things: Turns[EpochRaise | None] = Turns()

    def take(self, rae: str, verdict: Judged) -> None:
        """Note what ``verdict``, of a message of ``rae``, asks for; of several epochs the highest ones count."""
        told = verdict.epoch_raise
        if told is None:
            return
        known = self._things.get(rae, RAE_SESSION)
        if known is None or (told.refused, told.above) > (known.refused, known.above):
            self._things.put(rae, RAE_SESSION, told)

    def forget(self, rae: str, session: str) -> None:
        """``rae`` shows that it holds ``session``, which ended here."""
        self._things.put(rae, session, None)

    def __iter__(self) -> Iterator[tuple[str, str, EpochRaise | None]]:
        """``(rae, session, None)``: to forget; ``(rae, "rae", …)``: to raise its epoch."""
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


class Teller:
    """Turns the asks of batch after batch into requests. Lives as long as its worker."""

    def __init__(self, *, random: Callable[[], float], new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._book: AskBook[tuple[str | int, ...]] = AskBook(first_s=FIRST_S, max_s=MAX_S, random=random)
        self._bucket = TokenBucket(PER_S, burst=BURST)
        self._waiting: Turns[EpochRaise | None] = Turns()

    def due(self, asks: Asks, *, now_s: float, at: datetime) -> Iterator[ToSay]:
        """The requests to make now, each RAE in its turn; each counts as asked.

        Also what was left over before, whatever ``asks`` is. With ``n`` RAEs that have something waiting each one is
        told something within ``n / PER_S`` seconds, if this is called so often.
        """
        for rae, session, told in asks:
            if self._book.is_due(_key(rae, session, told), now_s):
                self._waiting.put(rae, session, told)
        while self._waiting and self._bucket.take(now_s):
            rae, session, told = self._waiting.pop()
            self._book.asked(_key(rae, session, told), now_s)
            yield self._said(rae, session, told, at)

    def _said(self, rae: str, session: str, told: EpochRaise | None, at: datetime) -> ToSay:
        request_id = self._new_id()
        if told is None:
            built = request("forget", rae=rae, request_id=request_id, at=at, args=ForgetArgs(session=session))
        else:
            args = EpochRaiseArgs(refused=told.refused, above=told.above)
            built = request("epoch.raise", rae=rae, request_id=request_id, at=at, args=args)
        return ToSay(cmd_topic(rae, RAE_SESSION, REGISTRY).encode(), encode(built))


def _key(rae: str, session: str, told: EpochRaise | None) -> tuple[str | int, ...]:
    """The same thing again is what has the same key: its backoff counts."""
    return (rae, session) if told is None else (rae, session, told.refused, told.above)
