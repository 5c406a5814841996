"""Days left of a certificate, read without a library of cryptography."""

import base64
import contextlib
import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from dmpd.lab.certificates import CertificateAuthority
from dmpd.runtime import metrics
from dmpd.runtime.authority import Authority
from dmpd.runtime.certificate import days_left, ends_at, list_ends_at, next_update
from dmpd.runtime.mqtt_stream import tls_context

_DER = base64.b64decode(
    """
MIHGMG4CAQEwCgYIKoZIzj0EAwIwDjEMMAoGA1UEAwwDbGFiFw0yNjExMjcyMzAwMDBaFw0zNjExMjUwMDAwMDBaoC8wLTAKBgNVHRQEAwIBATAf
BgNVHSMEGDAWgBS31Ha4lDOaysLZTWneOygEUCi5pDAKBggqhkjOPQQDAgNIADBFAiEAgdpL7rvH1yB3SJa+nntgIqE+eH6RnTl4gy6oU+D3K7AC
IDPEmshltriK37uJ7YFZR23WP9NvzUe8qKs+K1fzyPVU
"""
)
"""An empty list."""


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


def test_every_python_verifies_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.13 asks by default for extensions that a site's CA may lack; name, chain and time are verified."""
    default = ssl.create_default_context

    def as_in_313(*args: object, **more: object) -> ssl.SSLContext:
        context = default(*args, **more)  # type: ignore[arg-type]
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_in_313)
    context = tls_context(CertificateAuthority(tmp_path).client("R1").mqtt_settings(port=1))
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_what_is_no_certificate_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.crt"
    now = datetime.now(UTC)
    assert days_left(path, now) is None
    path.write_bytes(b"garbage")
    assert days_left(path, now) is None
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert days_left(path, now) is None


def test_lists_end_when_the_first_of_them_does(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    lists = []
    for name, days in (("a", 3650), ("b", 30), ("c", 40 * 365)):  # the last one's year is written with four digits
        made = Authority.create(tmp_path / name, name=name, now=now, days=days, durable=False)
        assert list_ends_at(made.list_file) == made.ends_at == now + timedelta(days=days)
        lists.append(made.revoke(range(1, 50), now=now))
    path = tmp_path / "all.pem"
    path.write_bytes(b"".join(lists))
    assert list_ends_at(path) == now + timedelta(days=30)


def test_a_list_without_an_end_or_that_is_none_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    assert list_ends_at(path) is None
    for content in (b"", b"garbage", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"):
        path.write_bytes(content)
        assert list_ends_at(path) is None
    files = CertificateAuthority(tmp_path / "ca").client("R1")
    assert list_ends_at(files.cert) is None


@given(st.data())
def test_a_damaged_list_is_an_error_of_ours_at_most(data: st.DataObject) -> None:
    content = bytearray(_DER)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError, IndexError):
        next_update(bytes(content[: data.draw(st.integers(0, len(content)))]))
