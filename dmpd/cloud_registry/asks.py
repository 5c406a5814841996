"""What RAEs have to be told because of what they sent: ``epoch.raise`` and ``forget``. Pure.

The model's verdicts say so while a batch is judged; after it the worker emits one request for each, and not again
before its backoff is over, so that a replay of a million old records is a handful of requests.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from dmpd.cloud_registry.ask_book import AskBook
from dmpd.model.apply import EpochRaise
from dmpd.model.codec import encode
from dmpd.model.requests import REGISTRY, EpochRaiseArgs, ForgetArgs, request
from dmpd.model.topics import RAE_SESSION, cmd_topic
from dmpd.runtime.token_bucket import TokenBucket

FIRST_S: Final = 60.0
MAX_S: Final = 3600.0
PER_S: Final = 10.0
"""Of one worker. What is over it is not asked: the RAE goes on sending what asks for it."""
BURST: Final = 50.0
PENDING_MAX: Final = 10_000
"""Of one batch; beyond it they are left to the next time."""


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
        self._raises: dict[str, EpochRaise] = {}
        self._forgets: dict[tuple[str, str], None] = {}

    def take(self, rae: str, verdict: Judged) -> None:
        """Note what ``verdict``, of a message of ``rae``, asks for; of several epochs the highest ones count."""
        told = verdict.epoch_raise
        if told is None:
            return
        known = self._raises.get(rae)
        if known is None:
            if len(self._raises) < PENDING_MAX:
                self._raises[rae] = told
        elif (told.refused, told.above) > (known.refused, known.above):
            self._raises[rae] = told

    def forget(self, rae: str, session: str) -> None:
        """``rae`` shows that it holds ``session``, which ended here."""
        if len(self._forgets) < PENDING_MAX:
            self._forgets[rae, session] = None

    @property
    def raises(self) -> Iterator[tuple[str, EpochRaise]]:
        return iter(self._raises.items())

    @property
    def forgets(self) -> Iterator[tuple[str, str]]:
        return iter(self._forgets)

    def __bool__(self) -> bool:
        return bool(self._raises or self._forgets)


class Teller:
    """Turns the asks of batch after batch into requests. Lives as long as its worker."""

    def __init__(self, *, random: Callable[[], float], new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._book: AskBook[tuple[str | int, ...]] = AskBook(first_s=FIRST_S, max_s=MAX_S, random=random)
        self._bucket = TokenBucket(PER_S, burst=BURST)

    def due(self, asks: Asks, *, now_s: float, at: datetime) -> Iterator[ToSay]:
        """The requests to make now; each counts as asked."""
        for rae, told in asks.raises:
            if self._may(("epoch.raise", rae, told.refused, told.above), now_s):
                args = EpochRaiseArgs(refused=told.refused, above=told.above)
                built = request("epoch.raise", rae=rae, request_id=self._new_id(), at=at, args=args)
                yield ToSay(cmd_topic(rae, RAE_SESSION, REGISTRY).encode(), encode(built))
        for rae, session in asks.forgets:
            if self._may(("forget", rae, session), now_s):
                built = request("forget", rae=rae, request_id=self._new_id(), at=at, args=ForgetArgs(session=session))
                yield ToSay(cmd_topic(rae, RAE_SESSION, REGISTRY).encode(), encode(built))

    def _may(self, key: tuple[str | int, ...], now_s: float) -> bool:
        if not self._book.is_due(key, now_s) or not self._bucket.take(now_s):
            return False
        self._book.asked(key, now_s)
        return True
