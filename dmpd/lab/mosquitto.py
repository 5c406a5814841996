"""The MQTT broker of the lab: Mosquitto with mutual TLS, the rules of ``etc/mosquitto/acl`` and no other door."""

import shutil
from pathlib import Path
from typing import Final, Literal

from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.layout import ETC
from dmpd.lab.server import ServerError, give_to, takes_connections, unprivileged_user, write_for


class Mosquitto:
    """A broker in ``folder``, listening on 127.0.0.1:``port``; the CN of a client's certificate is its name."""

    name: Final = "mosquitto"
    stop_signal: Literal["TERM", "INT"] = "TERM"

    def __init__(self, folder: Path, *, port: int, authority: CertificateAuthority) -> None:
        self.folder = folder
        self.port = port
        self.user = unprivileged_user("mosquitto")
        self._authority = authority

    def prepare(self) -> None:
        _binary()
        self.folder.mkdir(parents=True, exist_ok=True)
        give_to(self.folder, self.user)
        server = self._authority.server()
        write_for(self.folder / "server.crt", server.cert.read_bytes(), user=self.user)
        write_for(self.folder / "server.key", server.key.read_bytes(), user=self.user)
        write_for(self.folder / "ca.crt", server.ca.read_bytes(), user=self.user)
        write_for(self.folder / "acl", (ETC / "mosquitto" / "acl").read_bytes(), user=self.user)
        template = (ETC / "mosquitto" / "mosquitto.conf.in").read_text()
        text = template.replace("@DIR@", str(self.folder)).replace("@PORT@", str(self.port))
        write_for(self.folder / "mosquitto.conf", text.encode(), user=self.user)

    def command(self) -> list[str]:
        return [_binary(), "-c", str(self.folder / "mosquitto.conf")]

    def is_ready(self) -> bool:
        return takes_connections(self.port)


def _binary() -> str:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ServerError("mosquitto is not installed (apt-get install mosquitto)")
    return found
