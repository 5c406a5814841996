"""Requests that dmpd itself makes of RAEs: verbs, arguments, topics. The Cloud Registry and dmpctl build them here, the
Local Registry reads them with the same structs. Pure: ids and times are passed in.

| verb | topic | arguments | the RAE |
|---|---|---|---|
| ``checkpoint`` | the session's | none | sends the session's complete record |
| ``checkpoint.all`` | ``rae`` | none | sends the complete record of every open session |
| ``epoch.raise`` | ``rae`` | ``EpochRaiseArgs`` | takes a new epoch above ``above``, if ``refused`` is its own still |
| ``forget`` | ``rae`` | ``ForgetArgs`` | closes a session that ended in the cloud, and onboards its device anew |
"""

from datetime import datetime
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Epoch, Request, Uuid
from dmpd.model.topics import RAE_SESSION

REGISTRY: Final = "svc-registry"
"""Who the Cloud Registry is when it asks."""

Verb = Literal["checkpoint", "checkpoint.all", "epoch.raise", "forget"]


class EpochRaiseArgs(Struct, frozen=True, kw_only=True):
    """``refused`` was the RAE's epoch, ``above`` is what outranks it. Obeyed only while both still hold."""

    refused: Epoch
    above: Epoch


class ForgetArgs(Struct, frozen=True, kw_only=True):
    """The device session that has a tombstone in the cloud."""

    session: Uuid


Args = EpochRaiseArgs | ForgetArgs | None


def request(
    verb: Verb, *, rae: str, request_id: str, at: datetime, session: str = RAE_SESSION, args: Args = None
) -> Request:
    """One request; ``session`` is set for ``checkpoint`` only. ``request_id`` is unique per requester for a day."""
    assert (verb == "checkpoint") == (session != RAE_SESSION)
    said = {} if args is None else {name: _raw(value) for name, value in msgspec.structs.asdict(args).items()}
    return Request(v=1, rae=rae, session=session, at=at, id=request_id, verb=verb, args=said)


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


_ArgsT = TypeVar("_ArgsT", bound=Struct)


def read_args(request: Request, kind: type[_ArgsT]) -> _ArgsT:
    """The arguments of ``request`` as ``kind``; unknown ones are ignored.

    Raises:
        InvalidMessageError: One is missing or wrong; the text says which.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(request.args), type=kind)
    except msgspec.ValidationError as error:
        raise InvalidMessageError("malformed", f"args: {error}") from error
