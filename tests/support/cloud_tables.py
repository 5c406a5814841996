"""All tables of the Cloud Registry as plain values, from the database or from the pure model, to be held against
each other. Times of the database's own clock and the place of a record stand apart: no model knows them.
"""

import json
from datetime import datetime
from fractions import Fraction

import msgspec

from dmpd.model.apply import apply_message
from dmpd.model.fold import Foldable
from dmpd.model.messages import Change, Closed, Event, Roster, Status
from dmpd.model.rae import apply_roster, apply_status
from dmpd.model.record import CORE_FIELDS

_SESSION = f"""
SELECT rae, session::text, epoch, rev, seq, stale, absent_at IS NOT NULL, closed_at IS NOT NULL, closed_reason,
    successor::text, changed_at, {", ".join(CORE_FIELDS)}
FROM device_session WHERE rae = ANY(%s)
"""
_INTERFACE = """
SELECT rae, session::text, place, mac, ip4, ip6, hostname, vendor_class, client_id, port, oui_vendor, mac_random
FROM device_interface WHERE rae = ANY(%s)
"""
_ATTRIBUTE = "SELECT rae, session::text, name, value::text FROM device_attribute WHERE rae = ANY(%s)"
_EVENT = "SELECT rae, session, at, seq, code, epoch, detail::text FROM device_event WHERE rae = ANY(%s)"
_RAE = "SELECT rae, epoch, run, state, status::text, heard_at FROM rae WHERE rae = ANY(%s)"


def stored_tables(connection, raes):
    """What the database has of ``raes``: by table, rows by primary key."""
    asked = (list(raes),)
    return {
        "device_session": {row[:2]: row[2:] for row in connection.execute(_SESSION, asked)},
        "device_interface": {
            row[:3]: (*row[3:5], tuple(row[5]), *row[6:]) for row in connection.execute(_INTERFACE, asked)
        },
        "device_attribute": {row[:3]: same(row[3]) for row in connection.execute(_ATTRIBUTE, asked)},
        "device_event": _told(connection.execute(_EVENT, asked)),
        "rae": {row[0]: (*row[1:4], same(row[4]), row[5]) for row in connection.execute(_RAE, asked)},
    }


def _told(events):
    """Events by key; one that tells of a whole way of states stands for each of them."""
    found = {}
    for rae, session, at, seq, code, epoch, text in events:
        detail = json.loads(text)
        if code != "state" or "way" not in detail:
            assert (rae, session, at, code) not in found
            found[rae, session, at, code] = (epoch, seq, same(text)) if code != "state" else _step(**detail)
            continue
        before = detail["from"]
        way = json.loads(detail["way"])
        assert len(way) == detail["passed"], "told whole"
        for each_at, _, rev, state, cause in way:
            key = (rae, session, datetime.fromisoformat(each_at), "state")
            assert key not in found, "told twice"
            found[key] = (before, state, rev, cause)
            before = state
    return found


def _step(**detail):
    return detail["from"], detail["to"], detail["rev"], detail["cause"]


def places(connection, raes):
    """``(partition, offset)`` that each device and RAE row names, by ``(rae, session)``."""
    found = connection.execute(
        "SELECT rae, session::text, kafka_partition, kafka_offset FROM device_session WHERE rae = ANY(%(raes)s)"
        " UNION ALL SELECT rae, 'rae', kafka_partition, kafka_offset FROM rae WHERE rae = ANY(%(raes)s)",
        {"raes": list(raes)},
    )
    return {row[:2]: row[2:] for row in found}


def same(text):
    """Equal for two JSON texts if and only if they mean the same: ``true`` is not 1, 1.0 is 1."""
    value = json.loads(text, parse_int=Fraction, parse_float=Fraction)
    return json.dumps(value, sort_keys=True, default=lambda number: {"number": str(number)})


class ModelTables:
    """The tables as the model fills them, message by message: what the Cloud Registry must end with."""

    def __init__(self):
        self.rows = {}
        self.raes = {}
        self.events = {}

    def take(self, message, *, received_at=None, retained=False):
        if isinstance(message, Event):
            self._note(message, message.code, message.detail)
        elif isinstance(message, Status):
            self.raes[message.rae], _ = apply_status(
                self.raes.get(message.rae), message, received_at=received_at, retained=retained
            )
        elif isinstance(message, Roster):
            self.rows = {key: apply_roster(row, message) for key, row in self.rows.items()}
        else:
            self._apply(message)
        return self

    def _apply(self, message):
        assert isinstance(message, Foldable)
        key = (message.rae, message.session)
        before = self.rows.get(key)
        after, _ = apply_message(before, message)
        if after is before:
            return
        self.rows[key] = after
        if isinstance(message, Closed):
            self._note(message, "closed", {"reason": message.reason, "successor": message.successor})
            return
        was = None if before is None else before.record.state
        said = (message.patch if isinstance(message, Change) else message.record).state
        if said is not msgspec.UNSET and said != was:
            self.events[message.rae, message.session, message.at, "state"] = (was, said, message.rev, message.cause)

    def _note(self, message, code, detail):
        key = (message.rae, message.session, message.at, code)
        self.events.setdefault(key, (message.epoch, message.seq or 0, same(msgspec.json.encode(detail))))

    def tables(self):
        """The same shape as ``stored_tables``."""
        found = {
            "device_session": {},
            "device_interface": {},
            "device_attribute": {},
            "device_event": dict(self.events),
        }
        for key, row in self.rows.items():
            core = [getattr(row.record, name) for name in CORE_FIELDS]
            ended = row.closed is not None
            found["device_session"][key] = (
                *(row.epoch, row.rev, row.seq, row.stale, row.absent, ended, row.closed, row.successor, row.changed_at),
                *core,
            )
            for place, interface in enumerate(row.record.interfaces):
                found["device_interface"][*key, place] = msgspec.structs.astuple(interface)
            for name, value in row.record.attributes.items():
                found["device_attribute"][*key, name] = same(bytes(value))
        found["rae"] = {
            rae: (
                row.status.epoch,
                row.status.run,
                row.status.state,
                same(msgspec.json.encode(row.status)),
                row.heard_at,
            )
            for rae, row in self.raes.items()
        }
        return found


SEQ, CHANGED_AT = 2, 8
"""Places of ``seq`` and ``changed_at`` in a row of device_session."""


def without_repeats(tables):
    """Without what checkpoints that say nothing new leave behind: one by one they are dropped, in a fold the last one
    gives ``seq`` and ``changed_at``.
    """
    rows = {
        key: tuple(value for place, value in enumerate(row) if place not in (SEQ, CHANGED_AT))
        for key, row in tables["device_session"].items()
    }
    return tables | {"device_session": rows}


def assert_same_tables(found, expected):
    """Row by row, so that a failure names the table and the key."""
    assert found.keys() == expected.keys()
    for table, rows in expected.items():
        differing = {
            key: (found[table].get(key), rows.get(key))
            for key in found[table].keys() | rows.keys()
            if found[table].get(key) != rows.get(key)
        }
        assert not differing, f"{table}, (found, expected) by key: {differing}"
