"""A PKI of one's own, as docs/rae.md shows it: signs a RAE's request with ``openssl``."""

import subprocess
from pathlib import Path

from dmpd.lab.certificates import CertificateAuthority

EXTENSIONS = "basicConstraints = critical, CA:FALSE\nextendedKeyUsage = clientAuth\n"


def sign(request: Path, authority: CertificateAuthority, *, extensions: str = EXTENSIONS) -> bytes:
    """The certificate for ``request``, PEM, good from now on."""
    key = authority.folder / "ca.key"
    command = ["openssl", "x509", "-req", "-in", request, "-CA", authority.ca_file, "-CAkey", key, "-days", "30"]
    done = subprocess.run(
        [*command, "-extfile", "/dev/stdin"], input=extensions.encode(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
