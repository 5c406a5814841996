"""Which certificates there are, how long they last, and whether a name may stand in one. Pure.

The broker takes the CN for the principal and asks nothing else, so a wrong name in a certificate is a wrong right: a
user who is called like a serial is that RAE. Used by the CA of dmpd; a foreign PKI has the same duties.
"""

from enum import Enum
from typing import Final

from dmpd.model.principals import SERVICES, PrincipalKind, principal_kind


class CertificateKind(Enum):
    """Whose certificate it is. All but ``SERVER`` are for clients only, ``SERVER`` is for servers only."""

    RAE = "rae"
    USER = "user"
    SERVICE = "service"
    CANARY = "canary"
    SERVER = "server"
    """The broker's own. Its name is no principal: with this certificate nobody can log in."""


LIFETIME_DAYS: Final = {
    CertificateKind.RAE: 825,
    CertificateKind.USER: 180,
    CertificateKind.SERVICE: 365,
    CertificateKind.CANARY: 365,
    CertificateKind.SERVER: 825,
}
"""A person leaves sooner than a router; a router is the hardest to reach when its certificate has ended."""
LIFETIME_DAYS_MAX: Final = 3650

MQTT_SERVICES: Final = frozenset(SERVICES - {"svc-registry"})
"""Those that connect to the broker; svc-registry speaks with Kafka only."""
_KINDS: Final = {
    PrincipalKind.RAE: CertificateKind.RAE,
    PrincipalKind.CANARY_RAE: CertificateKind.CANARY,
    PrincipalKind.USER: CertificateKind.USER,
    PrincipalKind.SERVICE: CertificateKind.SERVICE,
}
_FORM: Final = "expected 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
_SAID: Final = {
    CertificateKind.RAE: "of a RAE",
    CertificateKind.USER: "of a user",
    CertificateKind.SERVICE: "of a service",
    CertificateKind.CANARY: "of one of the canary's RAEs",
    CertificateKind.SERVER: "of a server",
}


class NameRefusedError(ValueError):
    """No certificate is made for this name; the text says why and what was expected."""


def kind_of_name(name: str) -> CertificateKind:
    """The only kind of client certificate that ``name`` may have. Raises ``NameRefusedError``."""
    if name == "admin":
        raise NameRefusedError("'admin' is nobody's name: brokers and their tools give it rights of its own")
    kind = principal_kind(name)
    if kind is PrincipalKind.OPERATOR:
        raise NameRefusedError(f"{name!r} is an operator, who speaks with Kafka only: no certificate is for op-…")
    if kind is None and name.startswith("svc-"):
        raise NameRefusedError(f"{name[:80]!r} is no service: there are {', '.join(sorted(MQTT_SERVICES))}")
    if kind is None and name.startswith("canary-"):
        raise NameRefusedError(f"{name[:80]!r} is no name of the canary's: expected canary- and 4 to 6 digits")
    if kind is None:
        raise NameRefusedError(f"{name[:80]!r} is no name of a principal: {_FORM}")
    if kind is PrincipalKind.SERVICE and name not in MQTT_SERVICES:
        raise NameRefusedError(f"{name!r} speaks with Kafka only: no certificate for the MQTT broker is for it")
    return _KINDS[kind]


def check_name(name: str, expected: CertificateKind) -> None:
    """Whether ``name`` may stand in a client certificate of this kind. Raises ``NameRefusedError``."""
    found = kind_of_name(name)
    if found is not expected:
        raise NameRefusedError(
            f"{name!r} is the name {_SAID[found]}, and this is to be a certificate {_SAID[expected]}"
        )
