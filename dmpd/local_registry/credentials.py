"""The RAE's key, certificate and CA as files: made, checked and put in place with Debian's ``openssl``; blocks for it.

Used by ``dmpctl enroll`` as root, and by the daemon to say what it lacks. Keys are made here and never leave the
router: what is signed elsewhere is the request. Files belong to root and to the group of their folder (0640).
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dmpd.runtime.settings import MqttSettings

FILE_MODE: Final = 0o640
FOLDER_MODE: Final = 0o750
_CURVE: Final = "ec_paramgen_curve:P-256"
_OPENSSL_TIMEOUT_S: Final = 60.0
_COMMON_NAME: Final = re.compile(r"^\s*commonName\s*= (.*)$", re.MULTILINE)


class CredentialsError(Exception):
    """Something cannot be used or written; the text says what, and what was expected."""


def lacking(rae: str, mqtt: MqttSettings) -> str | None:
    """What the RAE must still be given to connect, as a sentence; None if all files can be read. Looks at the disk."""
    wanted = {
        mqtt.key_file: "its private key",
        mqtt.cert_file: f"a certificate for it with the CN {rae}",
        mqtt.ca_file: "the CA of the broker",
    }
    gone = [f"{file} ({what})" for file, what in wanted.items() if not os.access(file, os.R_OK)]
    return f"not there or not readable: {', '.join(gone)}; see dmpctl enroll" if gone else None


def request_path(mqtt: MqttSettings) -> Path:
    """Where the signing request lies: beside the certificate that will answer it."""
    return Path(mqtt.cert_file).with_suffix(".csr")


def next_key_path(mqtt: MqttSettings) -> Path:
    """Where a renewal's key waits for its certificate, while the old one serves on."""
    return Path(f"{mqtt.key_file}.next")


def make_request(rae: str, mqtt: MqttSettings, *, renew: bool) -> Path:
    """A signing request with the CN ``rae``; its key is the one that is there, a fresh one where there is none.

    Args:
        renew: Make a fresh key although there is one; the old one serves until the new certificate is installed.

    Returns:
        The request's path.

    Raises:
        CredentialsError: ``openssl`` is missing or fails, or the folder cannot be written.
    """
    key, waiting, request = Path(mqtt.key_file), next_key_path(mqtt), request_path(mqtt)
    if renew and key.exists():
        key = waiting
    if not key.exists():
        _put(key, _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", _CURVE))
    _put(request, _openssl("req", "-new", "-key", str(key), "-subj", f"/CN={rae}"))
    return request


def install(rae: str, mqtt: MqttSettings, *, certificate: bytes, ca: bytes | None) -> None:
    """Check a signed certificate and its CA, and put them in place; then nothing of a renewal is left.

    Args:
        certificate: PEM; intermediate certificates may follow.
        ca: PEM; None = the one that is in place.

    Raises:
        CredentialsError: Anything does not fit; nothing was changed.
    """
    with tempfile.TemporaryDirectory(prefix="dmpd-enroll-") as name:
        folder = Path(name)
        trusted = Path(mqtt.ca_file) if ca is None else folder / "ca.crt"
        if ca is not None:
            trusted.write_bytes(ca)
        elif not trusted.exists():
            raise CredentialsError(f"{trusted} is not there: give the CA too (--ca FILE)")
        candidate = folder / "client.crt"
        candidate.write_bytes(certificate)
        check(rae, certificate=candidate, ca=trusted)
        key = _key_of(candidate, (next_key_path(mqtt), Path(mqtt.key_file)))
    if ca is not None:
        _put(Path(mqtt.ca_file), ca)
    if key != Path(mqtt.key_file):
        key.replace(mqtt.key_file)
    _put(Path(mqtt.cert_file), certificate)
    request_path(mqtt).unlink(missing_ok=True)


def check(rae: str, *, certificate: Path, ca: Path) -> None:
    """Whether ``certificate`` is that of ``rae``, by ``ca``, today.

    Raises:
        CredentialsError: It is not; says why.
    """
    subject = _openssl("x509", "-in", str(certificate), "-noout", "-subject", "-nameopt", "multiline").decode()
    names = _COMMON_NAME.findall(subject)
    if names != [rae]:  # of several a broker takes the first, and another one the last
        found = ", ".join(names) or "none"
        raise CredentialsError(f"the certificate's CN must be {rae} and nothing else, it has: {found}")
    try:
        chain = ["-CAfile", str(ca), "-untrusted", str(certificate)]
        _openssl("verify", "-no-CApath", "-no-CAstore", "-purpose", "sslclient", *chain, str(certificate))
    except CredentialsError as error:
        raise CredentialsError(f"the certificate is not good by this CA at this router's time: {error}") from error


def _key_of(certificate: Path, keys: Sequence[Path]) -> Path:
    """Which of the keys the certificate was signed for. Raises ``CredentialsError``: none of them."""
    public = _openssl("x509", "-in", str(certificate), "-noout", "-pubkey")
    for key in keys:
        if key.exists() and _openssl("pkey", "-in", str(key), "-pubout") == public:
            return key
    raise CredentialsError(
        f"the certificate was not signed for a key of this router ({keys[-1]}): sign its own request"
    )


def _put(path: Path, content: bytes) -> None:
    """Write a whole file or nothing of it, for root and the folder's group only. Raises ``CredentialsError``."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(file.fileno(), -1, path.parent.stat().st_gid)
            os.fchmod(file.fileno(), FILE_MODE)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error


def _openssl(*arguments: str) -> bytes:
    """Run ``openssl``; returns its stdout. Raises ``CredentialsError`` with its last words."""
    try:
        done = subprocess.run(
            ["openssl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_OPENSSL_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise CredentialsError(f"openssl: {error.strerror} (apt-get install openssl)") from error
    except subprocess.TimeoutExpired as error:
        raise CredentialsError(f"openssl {arguments[0]} did not end within {_OPENSSL_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        told = next((line for line in lines if line.startswith("error ")), lines[0])
        raise CredentialsError(f"openssl {arguments[0]}: {told}")
    return done.stdout
