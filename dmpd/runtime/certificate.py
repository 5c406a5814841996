"""How long our own certificate is still good: a fleet whose certificates end on one day ends on it."""

import base64
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_EXPLICIT_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17

_log = logging.getLogger(__name__)


def days_left(path: Path, now: datetime) -> int | None:
    """Whole days until the first certificate in ``path`` ends, negative when it has; None if it cannot be read."""
    ends = ends_at(path)
    return None if ends is None else (ends - now).days


def ends_at(path: Path) -> datetime | None:
    """When the first certificate in ``path`` ends; None if it cannot be read."""
    try:
        found = _PEM.search(path.read_bytes())
        return None if found is None else not_after(base64.b64decode(found.group(1)))
    except (OSError, ValueError, IndexError) as error:
        _log.debug("%s: %s", path, error)
        return None


def not_after(certificate: bytes) -> datetime:
    """End of validity of a DER certificate.

    Raises:
        ValueError, IndexError: Not a certificate.

    Source: RFC 5280 section 4.1: Certificate → tbsCertificate → [version] serial signature issuer validity.
    """
    _, tbs, _ = _element(certificate, 0)
    _, at, _ = _element(certificate, tbs)
    tag, _, after = _element(certificate, at)
    at = after if tag == _EXPLICIT_VERSION else at
    for _ in range(3):  # serial number, signature algorithm, issuer
        _, _, at = _element(certificate, at)
    tag, not_before, _ = _element(certificate, at)
    if tag != _SEQUENCE:
        raise ValueError("no validity where it should be")
    _, _, at = _element(certificate, not_before)
    tag, start, end = _element(certificate, at)
    text = certificate[start:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """(tag, start of the content, end of the content) of the DER element at ``at``."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length >= 0x80:
        octets = length & 0x7F
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    return tag, start, start + length
