"""Days left of a certificate, read without a library of cryptography."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from dmpd.lab.certificates import CertificateAuthority
from dmpd.runtime import metrics
from dmpd.runtime.certificate import days_left, ends_at
from dmpd.runtime.mqtt_stream import tls_context


def test_days_left_are_those_of_the_certificate(tmp_path: Path) -> None:
    files = CertificateAuthority(tmp_path).client("R1")
    ends = x509.load_pem_x509_certificate(files.cert.read_bytes()).not_valid_after_utc
    assert days_left(files.cert, ends - timedelta(days=10, hours=1)) == 10
    assert days_left(files.cert, ends + timedelta(days=2)) == -2
    assert ends_at(files.cert) == ends


def test_the_metric_says_when_the_certificate_in_use_ends(tmp_path: Path) -> None:
    files = CertificateAuthority(tmp_path).client("R1")
    tls_context(files.mqtt_settings(port=1))
    ends = x509.load_pem_x509_certificate(files.cert.read_bytes()).not_valid_after_utc
    (line,) = re.findall(r"^dmpd_mqtt_certificate_ends_seconds (.+)$", metrics.render().decode(), re.MULTILINE)
    assert float(line) == ends.timestamp()


def test_what_is_no_certificate_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.crt"
    now = datetime.now(UTC)
    assert days_left(path, now) is None
    path.write_bytes(b"garbage")
    assert days_left(path, now) is None
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert days_left(path, now) is None
