"""One device session, named on the command line by its id or how it begins; what is said if that is not one."""

import argparse
from typing import Final

from dmpd.cli.arguments import checked
from dmpd.cli.arguments import rae as rae_argument
from dmpd.cli.showing import NothingToShowError
from dmpd.cloud_registry import query
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

Key = tuple[str, str]
"""``(rae, session)``."""

_HINT: Final = "dmpctl devices lists the open ones"


def add_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """``ID`` and ``--rae``."""
    parser.add_argument(
        "id",
        metavar="ID",
        nargs="?" if optional else None,
        type=checked(_id),
        help="device session id, or how it begins",
    )
    parser.add_argument("--rae", type=rae_argument, help="only of this RAE")


def find(connection: Connection, args: argparse.Namespace) -> Key:
    """The session that ``args.id`` names.

    Raises:
        NothingToShowError: There is none, or more than one; the text lists them.
    """
    found = query.find_sessions(connection, args.id, rae=args.rae)
    if len(found) > 1:
        shown = found[: query.FOUND_MAX - 1]
        count = str(len(found)) if len(found) == len(shown) else f"more than {len(shown)}"
        lines = [f"{count} sessions begin with {args.id}:", *(f"  {session} of {rae}" for rae, session in shown)]
        lines += ["  …"] if len(found) > len(shown) else []
        raise NothingToShowError("\n".join(lines), exit_codes.AMBIGUOUS)
    if not found:
        raise absent(args)
    return found[0]


def absent(args: argparse.Namespace) -> NothingToShowError:
    of_rae = f" of {args.rae}" if args.rae else ""
    return NothingToShowError(f"no device session {args.id}{of_rae} ({_HINT})", exit_codes.DIFFERENT)


def _id(text: str) -> str:
    query.session_range(text)
    return text.lower()
