"""Requests: what may be asked of whom, with which arguments and for how long, and how one travels as a Kafka record.

Pure, and used by all who send, carry or execute one: dmpctl, the Cloud Registry, the bridge, the RAE. A request is
named by its requester and its ``id``; whoever repeats one keeps the id, and nothing runs twice.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, NamedTuple, TypeVar, get_args

import msgspec
from msgspec import Meta, Raw, Struct

from dmpd.model import limits
from dmpd.model.bounds import check_attribute_name, check_attributes
from dmpd.model.codec import encode
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Epoch, Outcome, Request, Uuid
from dmpd.model.topics import RAE_SESSION, cmd_topic

EXPIRY_HEADER: Final = "mqtt-message-expiry-interval"
"""Of a record of ``dmp.cmd``: the lifetime in seconds, counted from the record's timestamp."""
LIFETIME_DEFAULT_S: Final = 60
LIFETIME_MAX_S: Final = 3600
REGISTRY: Final = "svc-registry"
"""Who the Cloud Registry is when it asks."""
DEDUPE_S: Final = 86_400
"""For so long a RAE remembers what it was asked, across restarts."""

SessionVerb = Literal["checkpoint", "probe", "attributes.set", "wake", "app.state", "app.launch", "app.stop"]
RaeVerb = Literal["pin", "merge", "split", "forget", "epoch.raise", "checkpoint.all", "ping", "log_level"]
SESSION_VERBS: Final[frozenset[str]] = frozenset(get_args(SessionVerb))
"""Asked of one device session, on its own topic."""
RAE_VERBS: Final[frozenset[str]] = frozenset(get_args(RaeVerb))
"""Asked of the RAE, on ``rae/cmd``, by those whom its configuration lists."""

FINAL_OUTCOMES: Final[frozenset[Outcome]] = frozenset({"done", "failed", "refused", "expired", "interrupted"})
"""All but ``accepted``, after which another response follows."""

_APP: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
_SECONDS: Final = re.compile(rb"[0-9]{1,10}")


class NoArgs(Struct, frozen=True):
    """The verb takes none; what is there is ignored."""


class AttributesSetArgs(Struct, frozen=True, kw_only=True):
    """``attributes.set``: final values by name, and names to take away. Not both for one name."""

    values: Annotated[dict[str, Raw], Meta(max_length=limits.ATTRIBUTES_MAX)] = msgspec.field(
        name="set", default_factory=dict
    )
    unset: Annotated[tuple[str, ...], Meta(max_length=limits.ATTRIBUTES_MAX)] = ()


class AppArgs(Struct, frozen=True, kw_only=True):
    """``app.state`` and ``app.stop``: the app's name as DIAL registers it, for example ``Netflix``."""

    app: Annotated[str, Meta(pattern=_APP)]


class AppLaunchArgs(AppArgs, frozen=True, kw_only=True):
    """``app.launch``: also what the app gets to read at its start (DIAL's payload, UTF-8)."""

    payload: Annotated[str, Meta(max_length=4096)] = ""


class ForgetArgs(Struct, frozen=True, kw_only=True):
    """``forget``: the device session to close; its device is onboarded anew."""

    session: Uuid


class EpochRaiseArgs(Struct, frozen=True, kw_only=True):
    """``epoch.raise``: obeyed only while ``refused`` is the RAE's epoch and ``above`` is higher."""

    refused: Epoch
    above: Epoch


class LogLevelArgs(Struct, frozen=True, kw_only=True):
    """``log_level``: of the RAE's process, until it ends."""

    level: Literal["debug", "info", "warning", "error"]


Args = NoArgs | AttributesSetArgs | AppArgs | AppLaunchArgs | ForgetArgs | EpochRaiseArgs | LogLevelArgs

ARGS: Final[Mapping[str, type[Args]]] = {
    "checkpoint": NoArgs,
    "probe": NoArgs,
    "attributes.set": AttributesSetArgs,
    "wake": NoArgs,
    "app.state": AppArgs,
    "app.launch": AppLaunchArgs,
    "app.stop": AppArgs,
    "pin": NoArgs,
    "merge": NoArgs,
    "split": NoArgs,
    "forget": ForgetArgs,
    "epoch.raise": EpochRaiseArgs,
    "checkpoint.all": NoArgs,
    "ping": NoArgs,
    "log_level": LogLevelArgs,
}


_ArgsT = TypeVar("_ArgsT", bound=Struct)


class RequestRecord(NamedTuple):
    """A request as a record of ``dmp.cmd``. Its partition is ``partition_of(rae, n)``."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def request_record(request: Request, requester: str, *, lifetime_s: int = LIFETIME_DEFAULT_S) -> RequestRecord:
    """``request`` of ``requester`` for ``dmp.cmd``.

    Args:
        request: Complete; see ``check_verb`` and ``read_args`` for what its RAE will refuse.
        requester: A principal; whoever may write ``dmp.cmd`` may name any.
        lifetime_s: From the moment Kafka has it, 1 .. 3600; afterwards it is not executed.

    Raises:
        InvalidMessageError: It would be refused on receipt.
    """
    assert 1 <= lifetime_s <= LIFETIME_MAX_S
    key = cmd_topic(request.rae, request.session, requester).encode()
    return RequestRecord(key, encode(request), ((EXPIRY_HEADER, b"%d" % lifetime_s),))


def lifetime_s(expiry_s: int | None) -> int:
    """The lifetime of a request whose message expiry is ``expiry_s``: absent = 60 s, and at most 1 h."""
    return LIFETIME_DEFAULT_S if expiry_s is None else min(expiry_s, LIFETIME_MAX_S)


def lifetime_of(headers: Iterable[tuple[str, bytes | None]]) -> int:
    """The lifetime of a record of ``dmp.cmd``, in seconds; the last header of that name counts.

    Raises:
        InvalidMessageError: ``malformed``: the header is no decimal number.
    """
    text = dict(headers).get(EXPIRY_HEADER)
    if text is None:
        return LIFETIME_DEFAULT_S
    if not _SECONDS.fullmatch(text):
        raise InvalidMessageError("malformed", f"header {EXPIRY_HEADER}: expected seconds, got {text[:32]!r}")
    return lifetime_s(int(text))


def check_verb(session: str, verb: str) -> None:
    """Refuse a verb that nobody knows, or that belongs on another topic.

    Raises:
        InvalidMessageError: ``unsupported``; says which of the two.
    """
    allowed, others = (RAE_VERBS, SESSION_VERBS) if session == RAE_SESSION else (SESSION_VERBS, RAE_VERBS)
    if verb in allowed:
        return
    if verb in others:
        where = "the RAE" if session != RAE_SESSION else "a device session"
        raise InvalidMessageError("unsupported", f"{verb} is asked of {where}, on its own topic")
    raise InvalidMessageError("unsupported", f"unknown verb {verb!r:.64}; here are: {', '.join(sorted(allowed))}")


def request(
    verb: SessionVerb | RaeVerb,
    *,
    rae: str,
    request_id: str,
    at: datetime,
    session: str = RAE_SESSION,
    args: Args | None = None,
) -> Request:
    """One request; ``session`` is set for the verbs of a session. ``request_id`` is unique per requester for a day."""
    assert (verb in SESSION_VERBS) == (session != RAE_SESSION)
    said = {} if args is None else msgspec.json.decode(msgspec.json.encode(args), type=dict[str, Raw])
    return Request(v=1, rae=rae, session=session, at=at, id=request_id, verb=verb, args=said)


def read_args(request: Request, kind: type[_ArgsT]) -> _ArgsT:
    """The arguments of ``request`` as ``kind``; unknown ones are ignored.

    Raises:
        InvalidMessageError: One is missing, of the wrong type or out of range; the text says which.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(request.args), type=kind)
    except msgspec.ValidationError as error:
        raise InvalidMessageError("malformed", f"args: {error}") from error


def args_of(request: Request) -> Args:
    """The arguments of ``request`` as its verb wants them.

    Raises:
        InvalidMessageError: Nobody knows the verb, it belongs on another topic, or an argument is wrong.
    """
    check_verb(request.session, request.verb)
    found: Args = read_args(request, ARGS[request.verb])
    if isinstance(found, AttributesSetArgs):
        _check_attributes(found)
    return found


def _check_attributes(found: AttributesSetArgs) -> None:
    if not found.values and not found.unset:
        raise InvalidMessageError("malformed", "args: expected set or unset")
    for name in (*found.values, *found.unset):
        check_attribute_name(name)
    check_attributes(found.values, limits.PAYLOAD_BYTES_MAX)
    both = next((name for name in found.unset if name in found.values), None)
    if both is not None:
        raise InvalidMessageError("malformed", f"args: {both!r:.64} is both set and unset")
