"""A PostgreSQL cluster of the lab's own: a unix socket and no TCP, run by an unprivileged user."""

import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Final, Literal

from dmpd.lab.server import ServerError, give_to, unprivileged_user

SUPERUSER: Final = "dmpd"
_TIMEOUT_S: Final = 60


class PostgreSQL:
    """A cluster in ``folder``. Only its own user and root can open the socket, hence no passwords.

    ``durable=False`` trades a power cut's safety for speed (tests); killing the process loses nothing either way.
    """

    name = "postgresql"
    stop_signal: Literal["TERM", "INT"] = "INT"

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder
        self.socket_folder = folder / "socket"
        self.user = unprivileged_user("postgres")
        self._data = folder / "data"
        self._durable = durable

    def prepare(self) -> None:
        programs = _programs()
        if os.geteuid() == 0 and self.user == "root":
            raise ServerError("postgresql: refuses to run as root and there is no user postgres")
        for folder in (self.folder, self.socket_folder):
            folder.mkdir(parents=True, exist_ok=True)
            give_to(folder, self.user)
        if (self._data / "PG_VERSION").exists():
            return
        options = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._run([str(programs / "initdb"), "-D", str(self._data), *options])

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "64MB",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(_programs() / "postgres"), "-D", str(self._data), *options]

    def is_ready(self) -> bool:
        command = [str(_programs() / "pg_isready"), "-q", "-h", str(self.socket_folder), "-t", "1"]
        return subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False).returncode == 0

    def conninfo(self, database: str) -> str:
        """The libpq connection string of ``database``, as superuser."""
        return f"host={self.socket_folder} dbname={database} user={SUPERUSER}"

    def create_database(self, name: str) -> str:
        """Make the empty database ``name`` unless it exists; returns its connection string. Blocks for 0.1 s.

        Raises:
            ServerError: The server refused.
        """
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
            raise ServerError(f"postgresql: {name!r} is no plain database name")
        known = self._sql(f"SELECT count(*) FROM pg_database WHERE datname = '{name}'")  # noqa: S608 - name is checked
        if known == "0":
            self._sql(f"CREATE DATABASE {name}")
        return self.conninfo(name)

    def drop_database(self, name: str) -> None:
        """Remove the database ``name``, ending its connections."""
        self._sql(f"DROP DATABASE {name} WITH (FORCE)")

    def _sql(self, statement: str) -> str:
        psql = [str(_programs() / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        return self._run([*psql, "-d", self.conninfo("postgres"), "-c", statement])

    def _run(self, command: list[str]) -> str:
        entry = pwd.getpwnam(self.user)
        as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(  # type: ignore[call-overload]
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd="/", **as_user
        )
        if done.returncode != 0:
            raise ServerError(f"postgresql: {Path(command[0]).name} failed\n{(done.stdout + done.stderr)[-2000:]}")
        return str(done.stdout).strip()


def _programs() -> Path:
    """The folder of the newest PostgreSQL on this machine; Debian keeps it off PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not found:
        raise ServerError("postgresql is not installed (apt-get install postgresql)")
    return max(found, key=lambda folder: int(folder.parent.name) if folder.parent.name.isdigit() else 0)
