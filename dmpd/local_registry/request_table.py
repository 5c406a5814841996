"""The requests a RAE was asked, as rows of its store: what makes that none runs twice. Used by ``store`` alone."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol


class RequestEntry(NamedTuple):
    """One request. ``response`` is the payload of its final response; None while it waits or runs."""

    requester: str
    id: str
    session: str
    verb: str
    received_ms: int
    response: bytes | None = None


class Quota(NamedTuple):
    """How many requests are remembered: of one requester, and in all."""

    per_requester: int
    in_all: int


class Verdict(NamedTuple):
    """``known``: it is ``stored`` already. ``over_quota``: too many are remembered; it is not. Only ``new`` may run."""

    kind: Literal["new", "known", "over_quota"]
    stored: RequestEntry | None = None


class Database(Protocol):
    """An open database, in the store's hands."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Any: ...
    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any: ...


class RequestTable:
    """Works on an open database; transactions and the translation of errors are the store's."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._counts: dict[str | None, int] = {}
        """Requests remembered, by requester, and in all (None): as of this transaction."""

    def accept(self, asked: RequestEntry, quota: Quota) -> Verdict:
        """Note ``asked`` if its (requester, id) was never seen and there is room; before it runs."""
        found = self._db.execute(
            "SELECT requester, id, session, verb, received_ms, response FROM request WHERE requester = ? AND id = ?",
            (asked.requester, asked.id),
        ).fetchone()
        if found is not None:
            return Verdict("known", RequestEntry(*found))
        if self._count(asked.requester) >= quota.per_requester or self._count(None) >= quota.in_all:
            return Verdict("over_quota")
        self._db.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)", asked)
        self._counts[asked.requester] += 1
        self._counts[None] += 1
        return Verdict("new")

    def _count(self, requester: str | None) -> int:
        if requester not in self._counts:
            query = "SELECT count(*) FROM request WHERE ?1 IS NULL OR requester = ?1"
            if requester is not None:  # so that the primary key is used
                query = "SELECT count(*) FROM request WHERE requester = ?1"
            self._counts[requester] = self._db.execute(query, (requester,)).fetchone()[0]
        return self._counts[requester]

    def answered(self, answers: Iterable[RequestEntry]) -> None:
        """Keep the responses. The rows may be absent: the store was lost while these ran."""
        self._db.executemany("INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?, ?, ?)", answers)

    def unanswered(self) -> list[RequestEntry]:
        rows = self._db.execute(
            "SELECT requester, id, session, verb, received_ms FROM request WHERE response IS NULL"
            " ORDER BY received_ms, requester, id"
        )
        return [RequestEntry(*row) for row in rows]

    def forget(self, *, before_ms: int, shift_ms: int) -> None:
        if shift_ms:
            self._db.execute("UPDATE request SET received_ms = received_ms + ?", (shift_ms,))
        self._db.execute("DELETE FROM request WHERE received_ms < ? AND response IS NOT NULL", (before_ms,))
