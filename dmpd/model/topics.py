"""MQTT topics, which are the Kafka keys too: built and parsed here and nowhere else.

dmp/v1/{rae}/{session}/info               what a RAE says of one device session, or of itself (session ``rae``)
dmp/v1/{rae}/{session}/cmd/{requester}    requests
dmp/v1/{rae}/{session}/rsp/{requester}    responses
dmp/v1/{rae}/rae/ack                      ``durable``, bridge to RAE
"""

import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from dmpd.model.partitioner import murmur2
from dmpd.model.principals import is_rae, is_requester

RAE_SESSION: Final = "rae"
"""Stands where a device_session_id would: messages of the RAE itself."""

TopicKind = Literal["info", "cmd", "rsp", "ack"]

_PREFIX: Final = "dmp/v1/"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class InvalidTopicError(ValueError):
    """A text that is no topic of dmpd; the message says which level is wrong."""


class Topic(NamedTuple):
    """A parsed topic. ``session`` is a lower-case UUID or ``rae``; ``requester`` is set for cmd and rsp only."""

    rae: str
    session: str
    kind: TopicKind
    requester: str | None = None

    def __str__(self) -> str:
        tail = f"/{self.requester}" if self.requester is not None else ""
        return f"{_PREFIX}{self.rae}/{self.session}/{self.kind}{tail}"


def is_session(text: str) -> bool:
    """Whether ``text`` is a device_session_id in its one allowed spelling (lower case, hyphens)."""
    return _UUID.fullmatch(text) is not None


def parse_topic(text: str) -> Topic:
    """Take ``text`` apart, strictly. Remembers none of them: sessions come and go for years, in every process.

    Raises:
        InvalidTopicError: Not a topic of dmpd, or a level has the wrong form.
    """
    levels = text.split("/")
    if len(levels) not in (5, 6) or levels[0] != "dmp" or levels[1] != "v1":
        raise InvalidTopicError("expected dmp/v1/{rae}/{session}/{info|cmd|rsp|ack}")
    rae, session, kind = levels[2:5]
    if not is_rae(rae):
        raise InvalidTopicError("level 3: not the serial of a RAE")
    if session != RAE_SESSION and not is_session(session):
        raise InvalidTopicError("level 4: neither a lower-case UUID nor 'rae'")
    if len(levels) == 5:
        if kind == "info":
            return Topic(rae, session, "info")
        if kind == "ack" and session == RAE_SESSION:
            return Topic(rae, session, "ack")
        raise InvalidTopicError("level 5: expected info, or ack under 'rae'")
    if not is_requester(levels[5]):
        raise InvalidTopicError("level 6: not the name of a requester")
    if kind == "cmd":
        return Topic(rae, session, "cmd", levels[5])
    if kind == "rsp":
        return Topic(rae, session, "rsp", levels[5])
    raise InvalidTopicError("level 5: expected cmd or rsp before a requester")


def info_topic(rae: str, session: str) -> str:
    return f"{_PREFIX}{rae}/{session}/info"


def ack_topic(rae: str) -> str:
    return f"{_PREFIX}{rae}/{RAE_SESSION}/ack"


def cmd_topic(rae: str, session: str, requester: str) -> str:
    return f"{_PREFIX}{rae}/{session}/cmd/{requester}"


def rsp_topic(rae: str, session: str, requester: str) -> str:
    return f"{_PREFIX}{rae}/{session}/rsp/{requester}"


def cmd_filter(rae: str) -> str:
    """All requests to one RAE, for a SUBSCRIBE."""
    return f"{_PREFIX}{rae}/+/cmd/+"


@lru_cache(maxsize=16_384)
def partition_of(rae: str, partitions: int) -> int:
    """Partition of everything that concerns ``rae``: Kafka's own default partitioner, keyed by the RAE alone.

    By the RAE and not by the topic, so that its roster, its status and its devices have one order and one writer.
    """
    assert partitions > 0
    return (murmur2(rae.encode()) & 0x7FFF_FFFF) % partitions
