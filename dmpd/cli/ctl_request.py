"""``dmpctl request SESSION VERB [NAME=VALUE…]``: ask a device session's RAE for something, and wait for its answer.

``dmpctl request --rae SERIAL VERB [NAME=VALUE…]`` asks the RAE itself. SESSION may be the beginning of an id. A VALUE
is JSON, or text where it is none. Verbs and their arguments: docs/messages.md. What happens meanwhile is told on
stderr. The same ``--id`` asks again what came of a request; it does not run twice.

Exit codes: 0 done, 1 no such session, 2 several begin like that (they are listed), 3 failed, 4 refused, 5 expired (not
begun, or no answer in its lifetime), 6 interrupted, 64 wrong usage, 69 Kafka, the database or the bridge does not
answer, 78 the configuration is wrong.
"""

import argparse
import sys
import time
from contextlib import closing
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from dmpd.cli import arguments, tables
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.cli.database_command import ask as ask_database
from dmpd.cli.request_sender import RequestSender, new_request
from dmpd.cloud_registry import query
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Outcome, Request, Response
from dmpd.model.requests import LIFETIME_DEFAULT_S, LIFETIME_MAX_S, RAE_VERBS, args_of
from dmpd.model.topics import RAE_SESSION, is_session
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

_SAY_EVERY_S: Final = 5.0
HELP: Final = "ask a RAE to do something, and wait for its answer"
_CODES: Final[dict[Outcome, int]] = {
    "done": exit_codes.OK,
    "failed": exit_codes.FAILED,
    "refused": exit_codes.REFUSED,
    "expired": exit_codes.EXPIRED,
    "interrupted": exit_codes.INTERRUPTED,
}


class _Whom(NamedTuple):
    rae: str
    session: str


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("words", nargs="+", metavar="[SESSION] VERB [NAME=VALUE]", help="without SESSION with --rae")
    parser.add_argument(
        "--rae", type=arguments.rae, metavar="SERIAL", help="ask this RAE itself, or about a session of it"
    )
    parser.add_argument(
        "--timeout",
        type=arguments.lifetime,
        default=LIFETIME_DEFAULT_S,
        metavar="S",
        help=f"its lifetime: afterwards it does not begin (default {LIFETIME_DEFAULT_S} s, at most {LIFETIME_MAX_S})",
    )
    parser.add_argument(
        "--as", dest="requester", type=arguments.operator, default=arguments.default_operator(), metavar="op-NAME"
    )
    parser.add_argument("--id", dest="name", metavar="ID", help="of the request, at most 128 characters; default new")
    parser.add_argument("--json", action="store_true", help="the final response as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    words = list(args.words)
    for_rae = args.rae is not None and words[0] in RAE_VERBS
    if not for_rae and len(words) < 2:
        print("dmpctl request: expected SESSION VERB, or --rae SERIAL VERB", file=sys.stderr)
        return exit_codes.USAGE
    named = None if for_rae else words.pop(0)
    try:
        request = new_request("r", _any_session(named), words[0], _pairs(words[1:]), name=args.name)
        args_of(request)  # what the RAE would refuse is said at once
        if named is not None:
            query.session_range(named)
    except (InvalidMessageError, ValueError) as error:
        print(f"dmpctl request: {getattr(error, 'detail', error)}", file=sys.stderr)
        return exit_codes.USAGE
    if named is None:
        return _ask(args, request, _Whom(args.rae, RAE_SESSION))
    if args.rae is not None and is_session(named):
        return _ask(args, request, _Whom(args.rae, named))
    found: list[tuple[str, str]] = []

    def look(connection: Connection) -> int:
        found.extend(query.find_sessions(connection, named, rae=args.rae))
        return exit_codes.OK

    code = ask_database(args, look)
    if code != exit_codes.OK:
        return code
    if len(found) == 1:
        return _ask(args, request, _Whom(*found[0]))
    return _not_one(named, found)


def _ask(args: argparse.Namespace, request: Request, whom: _Whom) -> int:
    settings = load_cloud_config(args)
    request = msgspec.structs.replace(request, rae=whom.rae, session=whom.session)
    with closing(RequestSender(settings.kafka, settings.topics, args.requester)) as sender:
        progress = _Progress(request, args.requester)
        response = sender.ask(request, lifetime_s=args.timeout, told=progress.told, waiting=progress.waiting)
    if args.json:
        tables.print_json(response)
    else:
        _print(response)
    return _CODES[response.outcome]


class _Progress:
    """One line on stderr for each thing that happens to the request, and while nothing does, with the time so far."""

    def __init__(self, request: Request, requester: str) -> None:
        self._request = request
        self._requester = requester
        self._began_s = self._said_s = time.monotonic()

    def waiting(self) -> None:
        if time.monotonic() - self._said_s >= _SAY_EVERY_S:
            self._say("waiting")

    def told(self, response: Response | None) -> None:
        request = self._request
        if response is None:
            whom = request.rae if request.session == RAE_SESSION else f"{request.session} of {request.rae}"
            what = f"{request.verb} to {whom} as {self._requester}, id {request.id}: in Kafka"
        else:
            what = response.outcome
        self._say(what)

    def _say(self, what: str) -> None:
        self._said_s = time.monotonic()
        took_ms = (self._said_s - self._began_s) * 1000
        print(f"{took_ms:8.0f} ms  {what}", file=sys.stderr, flush=True)


def _print(response: Response) -> None:
    result = bytes(response.result).decode()
    said = [tables.printable(response.error)] if response.error else []
    said += [tables.printable(result)] if result not in ("null", "{}") else []
    print(": ".join([response.outcome, *said]))


def _not_one(named: str, found: list[tuple[str, str]]) -> int:
    if not found:
        print(f"dmpctl request: no device session {named}", file=sys.stderr)
        return exit_codes.DIFFERENT
    print(f"dmpctl request: {len(found)} sessions begin with {named}:", file=sys.stderr)
    for rae, session in found:
        print(f"  {session} of {rae}", file=sys.stderr)
    return exit_codes.AMBIGUOUS


def _any_session(named: str | None) -> str:
    """Stands for the session until it is known: what may be asked of one depends on whether it is one at all."""
    return RAE_SESSION if named is None else "00000000-0000-4000-8000-000000000000"


def _pairs(words: list[str]) -> dict[str, Raw]:
    found = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise ValueError(f"expected NAME=VALUE, got {word!r}")
        try:
            msgspec.json.decode(value)
        except msgspec.DecodeError:
            value = msgspec.json.encode(value).decode()
        found[name] = Raw(value)
    return found
