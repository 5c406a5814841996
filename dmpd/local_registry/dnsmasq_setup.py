"""The drop-in that has dnsmasq tell of leases by dmpd's hook: written only if dnsmasq accepts its whole configuration.

For ``dmpctl local setup-dnsmasq``, as root. dnsmasq is never restarted from here: that is the administrator's moment.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

DROP_IN: Final = "dmpd.conf"
HOOK: Final = Path("/usr/lib/dmpd/lease-hook")
_SUFFIXES_LEFT_OUT: Final = ".dpkg-dist,.dpkg-old,.dpkg-new"
"""As Debian's own dnsmasq service leaves them out of its folder."""
_SCRIPT: Final = re.compile(r"^\s*dhcp-script\s*=\s*(\S.*?)\s*$", re.MULTILINE)
_TEST_TIMEOUT_S: Final = 30.0


class DnsmasqError(Exception):
    """dnsmasq is not there, does not accept its configuration, or has a script already; nothing was changed."""


class Dnsmasq(NamedTuple):
    """Where its configuration lies."""

    config: Path
    folder: Path

    @property
    def drop_in(self) -> Path:
        return self.folder / DROP_IN


def content(hook: Path) -> str:
    """The drop-in. Pure."""
    return (
        "# Written by dmpctl local setup-dnsmasq; dmpctl local setup-dnsmasq --undo takes it away.\n"
        "# Tells dmpd's Local Registry of each lease at once; the hook never waits and never fails.\n"
        f"dhcp-script={hook}\n"
    )


def scripts_in(texts: Iterable[str]) -> list[str]:
    """The ``dhcp-script`` lines of configuration files: dnsmasq obeys one of them. Pure."""
    return [match for text in texts for match in _SCRIPT.findall(text)]


def check(dnsmasq: Dnsmasq, wanted: str) -> None:
    """Have dnsmasq judge its configuration with ``wanted`` as the drop-in, before anything is written.

    Raises:
        DnsmasqError: No dnsmasq, another script is configured, or dnsmasq refuses; with its own words.
    """
    files = [dnsmasq.config, *sorted(dnsmasq.folder.glob("*"))]
    others = [file for file in files if file.is_file() and file.name != DROP_IN]
    if found := scripts_in(file.read_text(errors="replace") for file in others):
        raise DnsmasqError(
            f"dnsmasq has a dhcp-script already ({found[0]}) and obeys one only: let that one run {HOOK} with the same"
            " arguments and environment, and set lan.lease_socket yourself"
        )
    with tempfile.TemporaryDirectory(prefix="dmpd-dnsmasq-") as name:
        folder = Path(name)
        for file in others[1:] if others[:1] == [dnsmasq.config] else others:
            shutil.copy2(file, folder / file.name)
        (folder / DROP_IN).write_text(wanted)
        _test(dnsmasq.config, folder)


def write(dnsmasq: Dnsmasq, wanted: str | None) -> None:
    """Put the drop-in in place, whole; None takes it away.

    Raises:
        DnsmasqError: The folder cannot be written.
    """
    temporary = dnsmasq.folder / f"{DROP_IN}.dpkg-new"  # a name that dnsmasq does not read
    try:
        if wanted is None:
            dnsmasq.drop_in.unlink(missing_ok=True)
            return
        temporary.write_text(wanted)
        temporary.chmod(0o644)
        temporary.replace(dnsmasq.drop_in)
    except OSError as error:
        raise DnsmasqError(f"{dnsmasq.drop_in}: {error.strerror}") from error


def _test(config: Path, folder: Path) -> None:
    main = config if config.exists() else Path("/dev/null")
    command = ["dnsmasq", "--test", f"--conf-file={main}", f"--conf-dir={folder},{_SUFFIXES_LEFT_OUT}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TEST_TIMEOUT_S, check=False)
    except OSError as error:
        raise DnsmasqError(f"dnsmasq: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise DnsmasqError(f"dnsmasq --test did not end within {_TEST_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        raise DnsmasqError(f"dnsmasq --test: {done.stderr.strip().replace(str(folder), str(DROP_IN))}")
