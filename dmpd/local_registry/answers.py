"""Final responses between the end of a request and the disk, and how long requests are remembered. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import structs

from dmpd.local_registry import metrics
from dmpd.local_registry.outbox import Row
from dmpd.local_registry.request_table import RequestEntry
from dmpd.local_registry.store import Commit
from dmpd.model.codec import encode
from dmpd.model.messages import Response
from dmpd.model.requests import DEDUPE_S, LIFETIME_MAX_S

TIDY_INTERVAL_S: Final = 600.0
CLOCK_JUMP_MS: Final = 60_000


class Answer(NamedTuple):
    """The final response to a request, before it has its epoch and its outbox row."""

    entry: RequestEntry
    response: Response


class AnswerBook:
    """Final responses that the disk has not taken yet, and whether it is known what ran before."""

    def __init__(self) -> None:
        self._waiting: list[Answer] = []
        self.rebuilt_ms = 0
        """When a lost store was begun anew, wall clock; 0 = never."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entry: RequestEntry, response: Response) -> None:
        self._waiting.append(Answer(entry, response))

    def add_interrupted(self, entry: RequestEntry, *, rae: str, at: datetime) -> None:
        """``entry`` waited or ran when the last life ended: it is not begun again, and its requester is told."""
        if any(answer.entry[:2] == entry[:2] for answer in self._waiting):
            return
        metrics.requests.labels(entry.verb, "interrupted").inc()
        why = "the RAE's program ended before this was done; what it did until then is not known"
        self.add(
            entry,
            Response(v=1, rae=rae, session=entry.session, at=at, id=entry.id, outcome="interrupted", error=why),
        )

    def into(self, commit: Commit, *, epoch: int, next_seq: Callable[[], int]) -> int:
        """Add all to ``commit``; returns how many, for ``done`` once it is durable."""
        for entry, waiting in self._waiting:
            seq = next_seq()
            response = structs.replace(waiting, epoch=epoch, seq=seq)
            at_ms = int(response.at.timestamp() * 1000)
            row = Row(seq, response.session, "response", epoch, at_ms, encode(response), entry.requester)
            commit.rows.append(row)
            commit.answers.append(entry._replace(response=row.payload))
        return len(self._waiting)

    def done(self, count: int) -> None:
        del self._waiting[:count]

    def blind_s(self, now_s: float) -> float:
        """For so long what ran before is not known (``now_s``: wall clock): what was asked may still be repeated."""
        if not self.rebuilt_ms:
            return 0.0
        return min(max(self.rebuilt_ms / 1000 + LIFETIME_MAX_S - now_s, 0.0), LIFETIME_MAX_S)


class Forgetting(NamedTuple):
    """What is due in the table of requests: shift all times of receipt, then forget those before ``before_ms``."""

    before_ms: int
    shift_ms: int


class RequestAges:
    """Requests are forgotten after a day by the wall clock; when that jumps, their ages stay what they were."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        """The last time by the monotonic (s) and by the wall clock (ms)."""

    def due(self, now_s: float, now_ms: int) -> Forgetting | None:
        """What to do now, or None; call ``done`` once it is."""
        if self._last is None:
            return Forgetting(now_ms - DEDUPE_S * 1000, 0)
        passed_s = now_s - self._last[0]
        if passed_s < TIDY_INTERVAL_S:
            return None
        jump_ms = now_ms - self._last[1] - int(passed_s * 1000)
        return Forgetting(now_ms - DEDUPE_S * 1000, jump_ms if abs(jump_ms) > CLOCK_JUMP_MS else 0)

    def done(self, now_s: float, now_ms: int) -> None:
        self._last = (now_s, now_ms)
