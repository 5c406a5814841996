"""How long certificates and lists of revoked ones are still good: a fleet whose certificates end on one day ends on it.

Read without a library of cryptography: a RAE and the cloud's image have none.
"""

import base64
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_LIST = re.compile(rb"-----BEGIN X509 CRL-----(.+?)-----END X509 CRL-----", re.DOTALL)
_INTEGER: Final = 0x02
_SEQUENCE: Final = 0x30
_EXPLICIT_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_TIMES: Final = (_UTC_TIME, 0x18)

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
    return _time(certificate, at)


def list_ends_at(path: Path) -> datetime | None:
    """When the earliest of the revocation lists in ``path`` ends: past it a broker refuses every certificate.

    None if there is none that can be read, or one of them names no end.
    """
    try:
        found = [next_update(base64.b64decode(one)) for one in _LIST.findall(path.read_bytes())]
    except (OSError, ValueError, IndexError) as error:
        _log.debug("%s: %s", path, error)
        return None
    ends = [one for one in found if one is not None]
    return min(ends) if ends and len(ends) == len(found) else None


def next_update(revocation_list: bytes) -> datetime | None:
    """``nextUpdate`` of a DER revocation list, or None if it has none.

    Raises:
        ValueError, IndexError: Not a revocation list.

    Source: RFC 5280 section 5.1: CertificateList → tbsCertList → [version] signature issuer thisUpdate nextUpdate.
    """
    _, tbs, _ = _element(revocation_list, 0)
    _, at, _ = _element(revocation_list, tbs)
    tag, _, after = _element(revocation_list, at)
    at = after if tag == _INTEGER else at
    for expected in ((_SEQUENCE,), (_SEQUENCE,), _TIMES):
        tag, _, after = _element(revocation_list, at)
        if tag not in expected:
            raise ValueError("no signature, issuer and thisUpdate where they should be")
        at = after
    return _time(revocation_list, at) if revocation_list[at] in _TIMES else None


def _time(data: bytes, at: int) -> datetime:
    """The UTCTime or GeneralizedTime at ``at``. Raises ``ValueError``."""
    tag, start, end = _element(data, at)
    text = data[start:end].decode("ascii")
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
