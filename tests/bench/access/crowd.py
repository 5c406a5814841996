"""The platform of a measurement: broker, database, daemon, and grants of others that are in force all the time."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.access import AccessRig, own_rig
from tests.support.platform import until
from tests.support.services import PostgreSQLService

SETTLE_TIMEOUT_S = 300.0


@contextmanager
def crowded(present: int, *, users: int) -> Iterator[tuple[AccessRig, PostgreSQLService]]:
    """``present`` grants of ``users`` users, each of a session of its own, stay in force, once it yields."""
    with own_rig() as (rig, server):
        rig.fill(present, users)
        until(lambda: rig.daemon.is_done(rules=present), f"{present} rules", SETTLE_TIMEOUT_S)
        yield rig, server
