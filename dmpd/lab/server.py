"""What the lab knows of a server, and the small things that all servers need: a user, a port, a probe."""

import os
import pwd
import random
import socket
from pathlib import Path
from typing import Final, Literal, Protocol

_PORTS: Final = range(15_000, 30_000)
"""Below the range from which the kernel takes ports for outgoing connections: a port chosen here is still free when
its server, killed a moment ago, comes back."""


class ServerError(Exception):
    """A server cannot be prepared or does not start; the text says which, and shows what it said itself."""


class Server(Protocol):
    """One server in one folder. ``prepare`` may be called again on the same folder: what is there is kept."""

    name: str
    folder: Path
    user: str
    """Who runs it: its own unprivileged user when we are root, else ourselves."""
    stop_signal: Literal["TERM", "INT"]

    def prepare(self) -> None:
        """Write the configuration and whatever the first start needs. Blocks for up to some seconds.

        Raises:
            ServerError: A program is missing, or preparing failed.
        """

    def command(self) -> list[str]:
        """The program and its arguments; it stays in the foreground and logs to its standard output."""

    def is_ready(self) -> bool:
        """Whether it takes connections now. Blocks for less than a second."""


def unprivileged_user(name: str) -> str:
    """``name`` when we are root and that user exists, else the user that we are."""
    own = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() != 0:
        return own
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        return own


def give_to(path: Path, user: str) -> None:
    """Make ``user`` the owner of ``path`` (a file, or a folder without what is in it); only root can and does."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def write_for(path: Path, content: bytes, *, user: str, mode: int = 0o600) -> None:
    """Write a file that only ``user`` (and root) may read; never readable by others, not even for a moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    give_to(path, user)


def free_ports(count: int) -> list[int]:
    """``count`` different ports of 127.0.0.1 on which nobody listens now.

    Raises:
        ServerError: Too few ports are free.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, k=min(len(_PORTS), 200 + count)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ServerError(f"found {len(found)} free ports on 127.0.0.1 between 15000 and 29999, need {count}")


def takes_connections(port: int) -> bool:
    """Whether somebody accepts TCP connections on 127.0.0.1:``port``."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False
