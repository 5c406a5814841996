"""The MQTT broker of the lab: Mosquitto with mutual TLS, the rules of ``etc/mosquitto/acl`` and no other door."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.layout import ETC
from dmpd.lab.server import ServerError, give_to, takes_connections, unprivileged_user, write_for

_PER_ADDRESS: Final = re.compile(r"^listener .*?(?=\n\n)", re.MULTILINE | re.DOTALL)
"""The part of the template that stands once for each address: from its ``listener`` line to the next empty line."""


_PLUGIN: Final = "mosquitto_dynamic_security.so"
_PLUGIN_FOLDERS: Final = ("usr/lib", "usr/lib/*-linux-*", "usr/local/lib")

DEMO_USER: Final = "u-demo"
_USER_RULES: Final = """
# Of the lab alone: a user who may ask every device for everything, in place of grants.
user {name}
topic write dmp/v1/+/+/cmd/{name}
topic read dmp/v1/+/+/rsp/{name}
topic read dmp/v1/+/+/info
"""


class Mosquitto:
    """A broker in ``folder`` on ``port`` of 127.0.0.1 and ``more_addresses``; the CN is the name of a client."""

    name = "mosquitto"
    stop_signal: Literal["TERM", "INT"] = "TERM"

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        authority: CertificateAuthority,
        more_addresses: Sequence[str] = (),
        users: Sequence[str] = (),
    ) -> None:
        """``users`` may ask every device for everything; the rules of ``etc`` know of none."""
        self.folder = folder
        self.port = port
        self.user = unprivileged_user("mosquitto")
        self._authority = authority
        self._users = users
        self._addresses = ("127.0.0.1", *more_addresses)

    def prepare(self) -> None:
        _binary()
        self.folder.mkdir(parents=True, exist_ok=True)
        give_to(self.folder, self.user)
        server = self._authority.server(self._addresses)
        write_for(self.folder / "server.crt", server.cert.read_bytes(), user=self.user)
        write_for(self.folder / "server.key", server.key.read_bytes(), user=self.user)
        write_for(self.folder / "ca.crt", server.ca.read_bytes(), user=self.user)
        write_for(self.folder / "crl.pem", self._authority.list_file.read_bytes(), user=self.user)
        rules = (ETC / "mosquitto" / "acl").read_text() + "".join(_USER_RULES.format(name=name) for name in self._users)
        write_for(self.folder / "acl", rules.encode(), user=self.user)
        template = (ETC / "mosquitto" / "mosquitto.conf.in").read_text()
        text = _PER_ADDRESS.sub(self._listeners, template).replace("@DIR@", str(self.folder))
        text = text.replace("@PLUGIN@", _plugin())
        write_for(self.folder / "mosquitto.conf", text.encode(), user=self.user)

    def command(self) -> list[str]:
        return [_binary(), "-c", str(self.folder / "mosquitto.conf")]

    def _listeners(self, template: re.Match[str]) -> str:
        block = template[0].replace("@PORT@", str(self.port))
        return "\n".join(block.replace("@ADDRESS@", address) for address in self._addresses)

    def is_ready(self) -> bool:
        return takes_connections(self.port)


def _binary() -> str:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ServerError("mosquitto is not installed (apt-get install mosquitto)")
    return found


def _plugin() -> str:
    """Dynamic security, which keeps the users' rules."""
    found = [path for folder in _PLUGIN_FOLDERS for path in Path("/").glob(f"{folder}/{_PLUGIN}")]
    if not found:
        raise ServerError(f"{_PLUGIN} is not installed (it comes with Debian's mosquitto)")
    return str(found[0])
