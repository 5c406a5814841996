"""The LAN as parts of the lab: its namespaces, and the commands and configuration of what runs in them."""

import shlex
from collections.abc import Mapping
from typing import Final

import yaml

from dmpd.lab import lan
from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.lan import LanLab
from dmpd.lab.lan_tools import LanLabError
from dmpd.lab.server import ServerError
from dmpd.lab.state import LabFolder

RAE: Final = "lan-0001"
"""Serial of the RAE whose LAN is real."""
DEVICES: Final = 3
PARTS: Final = ("lab-dnsmasq", "lab-local-registry-lan", "lab-duts")
"""Program files of the LAN, in the order of their start."""
_GRACE_S: Final = 5.0
"""Until a device whose cable was pulled counts as offline: people watch, so it is shorter than in the field."""


def lan_of(folder: LabFolder) -> LanLab:
    """The LAN of this lab, whether it is up or not."""
    return LanLab(folder.root.name, folder.lan, DEVICES)


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

    def environment(self, dmpd: str) -> Mapping[str, str]:
        """Commands for the LAN's program files."""
        config = str(self._folder.lan / "local-registry.yaml")
        commands = {
            "DNSMASQ": self._lan.dnsmasq_command(),
            "LOCAL_REGISTRY_LAN": self._lan.router_command([dmpd, "local-registry", "--config", config]),
            **{f"DUT_{dut.number}": self._lan.dut_command(dut.name) for dut in self._lan.duts()},
        }
        return {f"DMPD_LAB_{name}_COMMAND": shlex.join(command) for name, command in commands.items()}

    def write_config(self, *, mosquitto_port: int, authority: CertificateAuthority) -> None:
        """Write the RAE's configuration file, and its certificate."""
        certificate = authority.client(RAE)
        content = {
            "rae": RAE,
            "state_dir": str(self._folder.lan),
            "mqtt": {
                "host": self.broker_address,
                "port": mosquitto_port,
                "ca_file": str(certificate.ca),
                "cert_file": str(certificate.cert),
                "key_file": str(certificate.key),
            },
            "lan": {"interface": lan.LAN_INTERFACE, "lease_file": str(self._lan.lease_file)},
            "presence": {"grace_s": _GRACE_S},
        }
        (self._folder.lan / "local-registry.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
