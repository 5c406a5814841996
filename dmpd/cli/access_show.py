"""``dmpctl access list | explain | audit | reconcile``: what is granted, why, what was done, what the broker lacks."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from dmpd.access import query
from dmpd.access.dynsec_rules import role_name
from dmpd.access.query import AuditLine
from dmpd.cli import access_wait, arguments, showing, tables
from dmpd.cli.access_wait import in_force
from dmpd.cli.config import add_config_argument
from dmpd.cli.showing import NothingToShowError, View
from dmpd.model.grant_request import said
from dmpd.model.grants import Grant, may_command, may_see, state_of
from dmpd.model.topics import RAE_SESSION, is_session
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

_COLUMNS: Final = ("grant", "user", "rae", "session", "level", "state", "from", "until", "by", "why")
_STYLES: Final = {"in force": "green", "ended": "dim", "orphaned": "yellow", "queued": "yellow"}
_AUDIT_LINES: Final = 200


def configure_list(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("--user", metavar="u-NAME", help="only this user's")
    parser.add_argument("--rae", type=arguments.rae, metavar="SERIAL", help="only of this RAE")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--at", type=arguments.since, metavar="T", help="in force then: RFC 3339, or 2h (ago)")
    when.add_argument("--past", action="store_true", help="those that ended too")
    showing.add_arguments(parser)


def configure_explain(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("user", metavar="u-NAME", help="who wants to see it")
    parser.add_argument("session", metavar="SESSION", help="id of a device session; or rae, with --rae")
    parser.add_argument("--rae", type=arguments.rae, metavar="SERIAL", help="whose session it is, if that is not known")
    showing.add_arguments(parser)


def configure_audit(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("--grant", metavar="GRANT", help="only this one")
    parser.add_argument("--user", metavar="NAME", help="only this user, or principal")
    parser.add_argument("--since", type=arguments.since, metavar="T", help="RFC 3339, or 2h (ago)")
    parser.add_argument(
        "--lines", type=arguments.count, default=_AUDIT_LINES, metavar="N", help=f"the newest N ({_AUDIT_LINES})"
    )
    showing.add_arguments(parser)


def run_list(args: argparse.Namespace) -> int:
    def look(connection: Connection) -> View:
        found = query.grants(connection, user=args.user, rae=args.rae, at=args.at, past=args.past)
        closed = query.closed_sessions(connection, found)
        now = args.at or query.clock(connection)
        rows = [(one, state_of(one, now, session_is_closed=(one.rae, one.session) in closed)) for one in found]
        json = [{"state": state, **msgspec.to_builtins(one)} for one, state in rows]
        return View(json, lambda: _table(rows), exit_codes.OK if rows else exit_codes.DIFFERENT)

    return showing.show(args, look)


def run_audit(args: argparse.Namespace) -> int:
    def look(connection: Connection) -> View:
        lines = query.audit(connection, grant=args.grant, user=args.user, since=args.since, limit=args.lines)
        return View(lines, lambda: _audit_table(lines), exit_codes.OK if lines else exit_codes.DIFFERENT)

    return showing.show(args, look)


def run_explain(args: argparse.Namespace) -> int:
    return showing.show(args, lambda connection: _explain(connection, args))


def _explain(connection: Connection, args: argparse.Namespace) -> View:
    if args.session != RAE_SESSION and not is_session(args.session):
        raise NothingToShowError(f"expected the id of a device session, got {args.session[:60]!r}", exit_codes.USAGE)
    now = query.clock(connection)
    rae = args.rae or _rae_of(connection, args.session)
    around = [one for one in query.grants(connection, rae=rae) if one.covers(rae, args.session)]
    held = query.grants(connection, rae=rae)
    own = [one for one in around if one.user == args.user]
    why = _sentences(connection, own, around, args.user, args.session, now)
    sees, commands = (judge(held, args.user, rae, args.session, now) for judge in (may_see, may_command))
    facts = {"user": args.user, "rae": rae, "session": args.session, "sees": sees, "commands": commands, "why": why}
    return View(facts, lambda: _explained(facts), exit_codes.OK if sees else exit_codes.DIFFERENT)


def _rae_of(connection: Connection, session: str) -> str:
    rows = connection.execute("SELECT rae FROM device_session WHERE session::text = %s LIMIT 2", (session,)).fetchall()
    if len(rows) != 1:
        many = "several RAEs have" if rows else "no RAE is known to have"
        raise NothingToShowError(f"{many} session {session}: name one with --rae", exit_codes.DIFFERENT)
    rae: str = rows[0][0]
    return rae


def _sentences(
    connection: Connection, own: Sequence[Grant], around: Sequence[Grant], user: str, session: str, now: datetime
) -> list[str]:
    if not own:
        return [f"{user} has no grant for it: dmpctl access grant {user} --rae SERIAL --session {session} …"]
    closed = query.closed_sessions(connection, own)
    found = []
    for one in own:
        state = state_of(one, now, session_is_closed=(one.rae, one.session) in closed)
        found.append(
            f"grant {one.id}: {one.level}, {state}, from {said(one.starts_at)} until {said(one.over_at)},"
            f" by {one.granted_by}: {one.why}"
        )
        if one.is_in_force(now):
            found.append(_in_broker(connection, one))
    alone = [one for one in around if one.level == "exclusive" and one.user != user and one.is_in_force(now)]
    found += [f"{one.user} commands it alone until {said(one.over_at)} (grant {one.id})" for one in alone]
    return found


def _in_broker(connection: Connection, grant: Grant) -> str:
    lines = query.audit(connection, grant=grant.id)
    if in_force(lines):
        since = [line.at for line in lines if line.code == "in force"][-1]
        return f"its rule {role_name(grant.id)} is in the broker since {said(since)}"
    return f"its rule {role_name(grant.id)} is missing in the broker: {access_wait.why_not(connection)}"


def _table(rows: Sequence[tuple[Grant, str]]) -> RenderableType:
    table = tables.table(_COLUMNS)
    for one, state in rows:
        cells = (one.id, one.user, one.rae, one.session or "all", one.level)
        table.add_row(
            *cells,
            Text(state, style=_STYLES.get(state, "")),
            said(one.starts_at),
            said(one.over_at),
            tables.printable(one.granted_by),
            tables.printable(one.why),
        )
    return table


def _audit_table(lines: Sequence[AuditLine]) -> RenderableType:
    table = tables.table(("at", "what", "grant", "principal", "by", "detail"))
    for line in lines:
        detail = ", ".join(f"{name}={value}" for name, value in sorted(line.detail.items()) if value not in (None, ""))
        cells = (line.code, line.grant or "-", line.principal or "-", line.actor, detail)
        table.add_row(f"{line.at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z", *(tables.printable(cell) for cell in cells))
    return table


def _explained(facts: dict[str, Any]) -> RenderableType:
    may = " and ".join(word for word, so in (("see", facts["sees"]), ("command", facts["commands"])) if so)
    head = f"{facts['user']} may {may or 'neither see nor command'} {facts['session']} of {facts['rae']}"
    return Group(Text(head, style="bold"), *(Text(f"• {tables.printable(sentence)}") for sentence in facts["why"]))
