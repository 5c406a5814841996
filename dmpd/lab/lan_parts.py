"""The LAN as parts of the lab: its namespaces, and the commands and configuration of what runs in them."""

import os
import shlex
import shutil
import subprocess
import sys
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

import yaml

from dmpd.lab import lan
from dmpd.lab import lan_tools as tools
from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.lan import LanLab
from dmpd.lab.lan_tools import LanLabError
from dmpd.lab.server import ServerError
from dmpd.lab.state import LabFolder

RAE: Final = "lan-0001"
"""Serial of the RAE whose LAN is real."""
PARTS: Final = ("lab-dnsmasq", "lab-local-registry-lan")
"""Program files of the router, in the order of their start; the devices are switched on after it."""
DUTS_PART: Final = "lab-duts"
_GRACE_S: Final = 5.0
"""Until a device whose cable was pulled counts as offline: people watch, so it is shorter than in the field."""
_NOBODY: Final = 65534
"""Its user on every Debian; nothing of the lab but this RAE's folder belongs to it."""
_NO_PRIVILEGES: Final = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
_TRY_TIMEOUT_S: Final = 30.0
_VENDORS: Final = "00005E ICANN, IANA Department\n"
"""Whom the devices' MACs belong to; the machine need not have the whole table."""


def lan_of(folder: LabFolder) -> LanLab:
    """The LAN of this lab, whether it is up or not."""
    info = folder.read_info()
    # Of the whole path: two labs may lie in folders of the same name, and a folder may be named as it likes.
    name = f"dmpd-{zlib.crc32(str(folder.root).encode()):08x}"
    return LanLab(name, folder.lan, max(1, info.duts) if info is not None else 1)


class LanParts:
    """The LAN of one lab. ``up`` before the broker is configured (it listens at ``broker_address``), ``down`` last."""

    def __init__(self, folder: LabFolder) -> None:
        self._folder = folder
        self._lan = lan_of(folder)

    @staticmethod
    def unavailable_reason() -> str | None:
        """Why there can be no LAN here, in one line."""
        return lan.available()

    def up(self) -> None:
        """Make namespaces and cables; starts no program.

        Raises:
            ServerError: The machine refuses; nothing is left.
        """
        try:
            self._lan.up()
        except LanLabError as error:
            raise ServerError(f"the LAN of network namespaces: {error}") from error

    def down(self) -> None:
        """Remove namespaces and cables, with whatever still runs in them; what is not there is no error."""
        try:
            self._lan.down()
        except LanLabError as error:
            raise ServerError(f"the LAN of network namespaces: {error}") from error

    @property
    def broker_address(self) -> str:
        return self._lan.uplink_broker_address

    @property
    def health(self) -> str:
        return f"unix:{self._folder.lan / 'control.sock'}"

    @property
    def _lease_socket(self) -> Path:
        return self._folder.lan / "lease.sock"

    def environment(self, dmpd: str) -> Mapping[str, str]:
        """Commands for the LAN's program files."""
        config = str(self._folder.lan / "local-registry.yaml")
        daemon = [*_without_privileges(self._uid), dmpd, "local-registry", "--config", config]
        duts = [sys.executable, "-m", "dmpd.lab.duts", self._lan.name, str(self._folder.lan)]
        commands = {
            "DNSMASQ": self._lan.dnsmasq_command(self._lease_socket),
            "LOCAL_REGISTRY_LAN": self._lan.router_command(daemon),
            "DUTS": [*duts, str(len(self._lan.duts())), str(self._folder.duts_socket)],
        }
        return {f"DMPD_LAB_{name}_COMMAND": shlex.join(command) for name, command in commands.items()}

    def write_config(self, *, mosquitto_port: int, authority: CertificateAuthority) -> None:
        """Write the RAE's configuration file and its certificate, for its own user to read."""
        certificate = authority.client(RAE)
        vendors = self._folder.lan / "oui.txt"
        vendors.write_text(_VENDORS)
        content = {
            "rae": RAE,
            "state_dir": str(self._folder.lan),
            "mqtt": {
                "host": self.broker_address,
                "port": mosquitto_port,
                "ca_file": str(self._own(certificate.ca)),
                "cert_file": str(self._own(certificate.cert)),
                "key_file": str(self._own(certificate.key)),
            },
            "lan": {
                "interface": lan.LAN_INTERFACE,
                "lease_file": str(self._lan.lease_file),
                "lease_socket": str(self._lease_socket),
                "oui_file": str(vendors),
            },
            "presence": {"grace_s": _GRACE_S},
        }
        (self._folder.lan / "local-registry.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        os.chown(self._folder.lan, self._uid, self._uid)

    @property
    def remark(self) -> str | None:
        """What somebody who knows RAEs would wonder about."""
        if self._uid == _NOBODY:
            return None
        return f"RAE {RAE} runs as root without capabilities, not as nobody: this checkout is closed to others"

    @cached_property
    def _uid(self) -> int:
        """Whose process the Local Registry is: nobody's, or our own if this checkout is closed to nobody."""
        command = [*_without_privileges(_NOBODY), sys.executable, "-c", "import dmpd.local_registry.daemon"]
        tried = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRY_TIMEOUT_S, check=False
        )
        return _NOBODY if tried.returncode == 0 else os.geteuid()

    def _own(self, file: Path) -> Path:
        """A copy of a certificate's file in the RAE's folder, its own: it cannot look into the authority's."""
        copy = self._folder.lan / file.name
        shutil.copyfile(file, copy)
        copy.chmod(0o600)
        os.chown(copy, self._uid, self._uid)
        return copy


def _without_privileges(uid: int) -> list[str]:
    """What runs a program as ``uid``, without capabilities, which makes even root one of many users."""
    user = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return [tools.program("setpriv"), *_NO_PRIVILEGES, *user]
