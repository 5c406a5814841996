"""Mosquitto's acl_file, as far as ``etc/mosquitto/acl`` uses it: read, and asked. Pure; for the twin and for tests."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from dmpd.runtime.mqtt_memory import matches

_ACCESS: Final = ("read", "write", "readwrite")


class _Line(NamedTuple):
    user: str | None
    """``None``: a pattern, for everybody."""
    access: str
    topic: str


class AclFile:
    """The rules of one file."""

    def __init__(self, text: str) -> None:
        """Raises ``ValueError``: a line that is none of ``pattern``, ``user``, ``topic``."""
        self._lines = _parse(text)

    def allows(self, user: str, action: Literal["read", "write"], topic: str) -> bool:
        """Whether ``user`` may receive (``read``) or publish (``write``) on ``topic``; never by silence."""
        return any(
            line.access in (action, "readwrite")
            and (line.user == user or (line.user is None and not set("+#/") & set(user)))
            and matches(line.topic.replace("%u", user).replace("%c", user), topic)
            for line in self._lines
        )


def _parse(text: str) -> Sequence[_Line]:
    found: list[_Line] = []
    user: str | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "user":
            user = rest.strip()
            continue
        access, _, topic = rest.strip().partition(" ")
        if word not in ("topic", "pattern") or access not in _ACCESS or (word == "topic" and user is None):
            raise ValueError(f"line {number}: expected pattern, user or topic with read, write or readwrite: {line!r}")
        found.append(_Line(user if word == "topic" else None, access, topic.strip()))
    return found
