"""A PKI of one's own, by the commands of docs/rae.md: signs a RAE's request with ``openssl``."""

import subprocess
import tempfile
from pathlib import Path

from dmpd.lab.certificates import CertificateAuthority
from tests.support import documented


def sign(request: Path, authority: CertificateAuthority, *, usage: str = "clientAuth") -> bytes:
    """The certificate for ``request``, PEM, good from now on."""
    script = documented.block("rae.md", "openssl x509")
    assert "clientAuth" in script
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source, copy in (
            (request, "client.csr"),
            (authority.ca_file, "ca.crt"),
            (authority.folder / "ca.key", "ca.key"),
        ):
            (folder / copy).write_bytes(source.read_bytes())
        command = ["bash", "-euc", script.replace("clientAuth", usage)]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return (folder / "client.crt").read_bytes()
