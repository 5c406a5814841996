"""Days left of a certificate, read without a library of cryptography."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from dmpd.lab.certificates import CertificateAuthority
from dmpd.local_registry.certificate import days_left


def test_days_left_are_those_of_the_certificate(tmp_path: Path) -> None:
    files = CertificateAuthority(tmp_path).client("R1")
    ends = x509.load_pem_x509_certificate(files.cert.read_bytes()).not_valid_after_utc
    assert days_left(files.cert, ends - timedelta(days=10, hours=1)) == 10
    assert days_left(files.cert, ends + timedelta(days=2)) == -2


def test_what_is_no_certificate_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.crt"
    now = datetime.now(UTC)
    assert days_left(path, now) is None
    path.write_bytes(b"garbage")
    assert days_left(path, now) is None
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert days_left(path, now) is None
