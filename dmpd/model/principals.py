"""Principals: the CN of a client certificate, and what kind of party that name is.

One namespace for all parties, kept apart by prefix, because the broker's ``%u`` patterns give every name the rights
of a RAE of that name: a user called like a serial would be that RAE.
"""

import re
from enum import Enum
from functools import lru_cache
from typing import Final


class PrincipalKind(Enum):
    RAE = "rae"
    CANARY_RAE = "canary"
    USER = "user"
    SERVICE = "service"
    OPERATOR = "operator"
    """Kafka only: no certificate is ever signed for ``op-``."""


SERVICES: Final = frozenset({"svc-bridge", "svc-access", "svc-canary", "svc-registry"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CANARY = re.compile(r"canary-[0-9]{4,6}", re.ASCII)


def principal_kind(name: str) -> PrincipalKind | None:
    """Kind of the party ``name``, or ``None`` for a name that no party may have."""
    if not _NAME.fullmatch(name) or name == "admin":
        return None
    if name.startswith("u-"):
        return PrincipalKind.USER if len(name) > len("u-") else None
    if name.startswith("op-"):
        return PrincipalKind.OPERATOR if len(name) > len("op-") else None
    if name.startswith("svc-"):
        return PrincipalKind.SERVICE if name in SERVICES else None
    if name.startswith("canary-"):
        return PrincipalKind.CANARY_RAE if _CANARY.fullmatch(name) else None
    return PrincipalKind.RAE


@lru_cache(maxsize=16_384)
def is_rae(name: str) -> bool:
    """Whether ``name`` may publish as a RAE: a serial, or one of the canary's own."""
    return principal_kind(name) in (PrincipalKind.RAE, PrincipalKind.CANARY_RAE)


def is_requester(name: str) -> bool:
    """Whether ``name`` may stand as the last level of a ``cmd`` or ``rsp`` topic: anybody but a RAE."""
    return principal_kind(name) in (PrincipalKind.USER, PrincipalKind.SERVICE, PrincipalKind.OPERATOR)
