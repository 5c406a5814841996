"""``dmpctl access grant | revoke | extend``: change what users may do, and wait until the broker does it."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from dmpd.access import query, store
from dmpd.access.store import HeldByOthersError, Wish
from dmpd.cli import access_wait, arguments, tables
from dmpd.cli.access_wait import Done
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.cli.database_command import ask
from dmpd.model.grant_request import GrantRefusedError, said
from dmpd.model.grants import Grant, Level
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

TIMEOUT_S: Final = 10.0


def configure_grant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", metavar="u-NAME", help="who: the CN of the user's certificate")
    parser.add_argument("--rae", required=True, metavar="SERIAL", help="which RAE")
    parser.add_argument(
        "--session", metavar="ID", help="one device session of it (default: all), or rae: its own topic"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--command", action="store_true", dest="commands", help="may send requests too")
    how.add_argument("--exclusive", action="store_true", help="requests too, and nobody else's meanwhile")
    parser.add_argument("--from", dest="starts_at", type=arguments.instant, metavar="T", help="RFC 3339 (default: now)")
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument("--for", dest="lasts", type=arguments.span, metavar="D", help="how long: 30m, 2h, 3d")
    end.add_argument("--until", dest="ends_at", type=arguments.instant, metavar="T", help="RFC 3339")
    parser.add_argument("--why", required=True, metavar="TEXT", help="for the audit")
    parser.add_argument("--wait", action="store_true", help="with --exclusive: take a place in the queue, and wait")
    _add_common(parser)


def configure_revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grant", metavar="GRANT", help="its id, or how it begins")
    parser.add_argument("--why", default="", metavar="TEXT", help="for the audit")
    _add_common(parser)


def configure_extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grant", metavar="GRANT", help="its id, or how it begins")
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument("--for", dest="lasts", type=arguments.span, metavar="D", help="so much longer: 30m, 2h, 3d")
    end.add_argument("--until", dest="ends_at", type=arguments.instant, metavar="T", help="RFC 3339")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    by = arguments.default_operator()
    parser.add_argument("--as", dest="by", type=arguments.operator, default=by, metavar="op-NAME", help=f"default {by}")
    parser.add_argument(
        "--timeout",
        type=arguments.seconds,
        default=TIMEOUT_S,
        metavar="S",
        help="for the broker (default 10 s; 0: none)",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run_grant(args: argparse.Namespace) -> int:
    if args.wait and not args.exclusive:
        print("dmpctl access grant: --wait is for --exclusive: only that has a queue", file=sys.stderr)
        return exit_codes.USAGE
    level: Level = "exclusive" if args.exclusive else "command" if args.commands else "read"
    wish = Wish(
        user=args.user,
        rae=args.rae,
        session=args.session,
        level=level,
        lasts=args.lasts,
        starts_at=args.starts_at,
        ends_at=args.ends_at,
        by=args.by,
        why=args.why,
    )
    hours_max = load_cloud_config(args).access.grant_hours_max

    def work(connection: Connection) -> int:
        made = store.grant(connection, wish, hours_max=hours_max, wait=args.wait)
        if not query.is_known_rae(connection, made.rae):
            _warn(f"nothing was ever heard of RAE {made.rae}; the grant holds if it enrols later")
        try:
            return _granted(connection, made, args)
        except KeyboardInterrupt:
            if args.wait and _changing(args, lambda fresh: _leave_queue(fresh, made, args)) == exit_codes.OK:
                return exit_codes.INTERRUPTED
            raise

    return _changing(args, work)


def _leave_queue(connection: Connection, made: Grant, args: argparse.Namespace) -> int:
    """Give the place back, unless it has moved up and begun.

    Ctrl-C may come in the middle of a question, and then the connection that asked is good for no other one: this is
    for a fresh one.
    """
    [current] = store.grants_named(connection, made.id)
    if current.starts_at <= query.clock(connection):
        return exit_codes.DIFFERENT
    store.revoke(connection, made.id, by=args.by, why="left the queue")
    _warn("left the queue")
    return exit_codes.OK


def run_revoke(args: argparse.Namespace) -> int:
    def work(connection: Connection) -> int:
        ended = store.revoke(connection, args.grant, by=args.by, why=args.why)
        return _say(connection, ended, args, access_wait.gone, "over")

    return _changing(args, work)


def run_extend(args: argparse.Namespace) -> int:
    hours_max = load_cloud_config(args).access.grant_hours_max

    def work(connection: Connection) -> int:
        later = store.extend(
            connection, args.grant, by=args.by, hours_max=hours_max, lasts=args.lasts, ends_at=args.ends_at
        )
        if not later.is_in_force(query.clock(connection)):
            return _say(connection, later, args, None, "extended")
        return _say(connection, later, args, access_wait.extended(later), "extended")

    return _changing(args, work)


def _changing(args: argparse.Namespace, work: Callable[[Connection], int]) -> int:
    def guarded(connection: Connection) -> int:
        try:
            return work(connection)
        except HeldByOthersError as refusal:
            if args.json:
                tables.print_json({"refused": str(refusal), "holders": [_facts(one) for one in refusal.holders]})
            print(f"dmpctl access {args.verb}: {refusal}", file=sys.stderr)
            return exit_codes.REFUSED
        except GrantRefusedError as refusal:
            if args.json:
                tables.print_json({"refused": str(refusal)})
            print(f"dmpctl access {args.verb}: {refusal}", file=sys.stderr)
            return exit_codes.REFUSED

    return ask(args, guarded)


def _granted(connection: Connection, made: Grant, args: argparse.Namespace) -> int:
    """Wait for its start if that is asked for, and then for the broker."""
    ahead_s = (made.starts_at - query.clock(connection)).total_seconds()
    if ahead_s > 0 and not (made.queued and args.wait):
        return _say(connection, made, args, None, f"starts at {said(made.starts_at)}")
    if ahead_s > 0:
        _warn(f"grant {made.id} stands in the queue, its turn comes at {said(made.starts_at)} at the latest")
    while True:
        [current] = store.grants_named(connection, made.id)
        now = query.clock(connection)
        if current.over_at <= now:
            raise GrantRefusedError(f"{made.id} ended at {said(current.over_at)} while it waited")
        if current.starts_at <= now:
            return _say(connection, current, args, access_wait.in_force, "in force")
        time.sleep(min(0.25, (current.starts_at - now).total_seconds()))


def _say(connection: Connection, grant: Grant, args: argparse.Namespace, done: Done | None, word: str) -> int:
    waited_s = None
    if done is not None and args.timeout > 0:
        waited_s = access_wait.wait(connection, grant, done, timeout_s=args.timeout)
    is_late = done is not None and args.timeout > 0 and waited_s is None
    facts = _facts(grant) | {"broker": None if done is None else not is_late, "after_s": waited_s}
    problem = f"it stands in the database, but the broker does not know yet: {access_wait.why_not(connection)}"
    if args.json:
        tables.print_json(facts | ({"problem": problem} if is_late else {}))
    else:
        scope = f"{grant.rae}/{grant.session or 'all sessions'}"
        after = f" after {waited_s:.2f} s" if waited_s is not None else ""
        print(f"{grant.id}  {grant.user} {grant.level} {scope} until {said(grant.over_at)}: {word}{after}")
    if is_late:
        print(f"dmpctl access {args.verb}: {problem}", file=sys.stderr)
        return exit_codes.FAILED
    return exit_codes.OK


def _facts(grant: Grant) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(grant)
    return found


def _warn(sentence: str) -> None:
    print(f"dmpctl access: {sentence}", file=sys.stderr)
