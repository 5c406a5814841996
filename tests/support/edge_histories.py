"""Logs as RAEs make them: in order, repeated from an earlier row on, with rows lost for good, with new epochs, and
with what an outranked twin of a RAE still says. Made from a short list of steps, so that Hypothesis can shrink them.
"""

import itertools
from datetime import timedelta

import msgspec
from hypothesis import strategies as st
from msgspec import Raw

from dmpd.model.apply import apply_message
from dmpd.model.messages import Event, Roster, Status
from dmpd.model.record import Interface, RecordPatch
from tests.support.messages import AT, change, checkpoint, closed, session_id

STATES = ("online", "asleep", "offline")
VALUES = ("null", "0", "1", "true", '"\\u00e9 \\"x\\""', '{"b": [1.5, null, {}], "a": 1}', "-1e3", '""', "[]",
          "1e23", "1.50", "12345678901234567e3", "0.10000000000000000000001")  # fmt: skip
"""Also numbers that are no double, and such as a database spells anew."""
SESSIONS = [session_id(number) for number in (1, 2, 3)]
_FIRST, _LAST = session_id(0), session_id(9)

STEP = st.tuples(
    st.sampled_from(
        ("change",) * 8
        + ("checkpoint", "checkpoint row", "closed", "event", "status", "roster", "phantom")
        + ("repeat", "repeat", "lose", "epoch", "twin", "heal")
    ),
    st.integers(0, 1),
    st.integers(0, 2),
    st.integers(0, 8),
)
LOGS = st.lists(STEP, min_size=1, max_size=24)
_numbers = itertools.count(1)


def unused_raes():
    """Two names that no example used before, so that all examples of a run share one database."""
    number = next(_numbers)
    return [f"R{number}-a", f"R{number}-b"]


class Edge:
    """One RAE that keeps records and writes rows; ``says`` is given every message that reaches Kafka.

    ``reuses_ids``: a session that ended may begin again under its id. No RAE does that: each onboarding has a new one.
    """

    def __init__(self, rae, says, *, reuses_ids=True):
        self.rae = rae
        self.says = says
        self.reuses_ids = reuses_ids
        self.ended = set()
        self.epoch = 1000
        self.run = 0
        self.seq = 0
        self.rows = {}
        self.truth = {}
        """The record by ``(rae, session, epoch, rev)``."""
        self.outbox = []
        self.old = []
        self.loses = False
        self.clock = 0

    def step(self, kind, nth, number):
        session = SESSIONS[nth]
        if session in self.ended and not self.reuses_ids and kind in ("change", "checkpoint", "checkpoint row"):
            return
        if kind == "change":
            self._change(session, number)
        elif kind == "checkpoint row" or (kind == "heal" and session in self.rows):
            self._ensure(session)
            self._row(self._checkpoint(session))
        elif kind == "checkpoint":
            self._ensure(session)
            self._out(msgspec.structs.replace(self._checkpoint(session), seq=None))
        elif kind == "closed" and self.rows.pop(session, None) is not None:
            self.ended.add(session)
            self._row(closed(9, session=session, reason=("left", "merged")[number % 2]))
        elif kind == "event":
            about = "rae" if number % 2 else session
            self._row(
                Event(v=1, rae=self.rae, session=about, at=AT, epoch=1, code="note", detail={"n": Raw(b"[1,null]")})
            )
        elif kind == "status":
            self._status(number)
        elif kind in ("roster", "phantom"):
            self._roster(forgetting=session if kind == "phantom" else None)
        elif kind == "repeat":
            for message in self.outbox[-1 - number :]:
                self.says(message)
        elif kind == "lose":
            self.loses = True
        elif kind == "epoch":
            self._new_epoch()
        elif kind == "twin" and self.old:
            self.says(self.old[number % len(self.old)])

    def _ensure(self, session):
        if session not in self.rows:
            self._apply(checkpoint(1, session=session, epoch=self.epoch))

    def _apply(self, message):
        message = msgspec.structs.replace(message, rae=self.rae, epoch=self.epoch)
        self.rows[message.session], _ = apply_message(self.rows.get(message.session), message)
        self._remember(message.session)

    def _remember(self, session):
        row = self.rows[session]
        self.truth[self.rae, session, row.epoch, row.rev] = row.record

    def _change(self, session, number):
        if session not in self.rows:
            self._ensure(session)
            self._row(self._checkpoint(session))
            return
        rev = self.rows[session].rev + 1
        value = Raw(VALUES[(number * 5 + rev) % len(VALUES)].encode())
        said = {
            0: {"patch": RecordPatch(attributes={"a": value, "b": value})},
            1: {"patch": RecordPatch(state=STATES[rev % 3], name=f"device {rev}")},
            2: {"patch": RecordPatch(interfaces=interfaces(number, rev))},
            3: {"patch": RecordPatch(esn=None if rev % 2 else "E", first_seen=AT, attributes={"c": value})},
            4: {"unset": ("a",)},
            5: {"patch": RecordPatch(state=STATES[rev % 2], attributes={"d": value})},
        }.get(number % 6)
        message = change(rev, session=session, epoch=self.epoch, cause="probe", **said)
        self._apply(message)
        self._row(message)

    def _checkpoint(self, session):
        row = self.rows[session]
        return checkpoint(row.rev, row.record, session=session, epoch=self.epoch)

    def _status(self, number):
        self.run += number % 2
        state = ("ready", "draining", "lost", "disconnected")[number % 4]
        self._out(
            Status(
                v=1,
                rae=self.rae,
                session="rae",
                at=AT,
                epoch=1,
                state=state,
                run=self.run + 1,
                seq_high=self.seq,
                outbox_rows=number,
            )
        )

    def _roster(self, *, forgetting):
        listed = tuple(session for session in sorted(self.rows) if session != forgetting)
        self._out(
            Roster(
                v=1,
                rae=self.rae,
                session="rae",
                at=AT,
                epoch=1,
                first=_FIRST,
                last=_LAST,
                sessions=listed,
                seq_high=self.seq,
            )
        )

    def _new_epoch(self):
        self.old.extend(self.outbox[-3:])
        self.epoch += 7
        self.outbox.clear()
        for session, row in self.rows.items():
            self.rows[session] = msgspec.structs.replace(row, epoch=self.epoch)
            self._remember(session)
            self._row(self._checkpoint(session))

    def _row(self, message):
        self.seq += 1
        said = self._out(msgspec.structs.replace(message, seq=self.seq), say=not self.loses)
        if not self.loses:
            self.outbox.append(said)
        self.loses = False

    def _out(self, message, *, say=True):
        self.clock += 1
        message = msgspec.structs.replace(
            message, rae=self.rae, epoch=self.epoch, at=AT + timedelta(milliseconds=self.clock)
        )
        if say:
            self.says(message)
        return message


def interfaces(number, rev):
    return tuple(
        Interface(
            mac=f"02:00:00:00:{number:02d}:{each:02d}",
            ip4=f"10.0.{each}.{rev % 250}" if each % 2 else None,
            ip6=("fe80::1", "fe80::2")[: rev % 3],
            hostname="h\u00f6st",
            mac_random=bool(rev % 2),
        )
        for each in range((number + rev) % 4)
    )
