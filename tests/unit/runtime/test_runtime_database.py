"""What is said of a database that cannot be reached, and how long one that was may hold up anybody."""

import contextlib

import msgspec
import pytest

from dmpd.runtime.database import DatabaseUnreachableError, connect
from dmpd.runtime.settings import DatabaseSettings
from tests.support.services import only_postgresql


def test_of_several_hosts_each_ones_answer_is_told_in_one_line(tmp_path):
    """Why the first one refuses is what an operator needs, not that the standby is no server yet."""
    hosts = [str(tmp_path / name) for name in ("one", "two")]
    with pytest.raises(DatabaseUnreachableError) as raised:
        connect(DatabaseSettings(conninfo=f"host={','.join(hosts)} dbname=x"), application="test")
    said = str(raised.value)
    assert "\n" not in said
    behind_address = said.split(": ", 1)[1]
    assert all(f"{host}/.s.PGSQL" in behind_address for host in hosts), said


def test_of_one_host_its_answer_is_told(tmp_path):
    with pytest.raises(DatabaseUnreachableError, match="No such file"):
        connect(DatabaseSettings(conninfo=f"host={tmp_path / 'one'} dbname=x"), application="test")


@pytest.mark.services
def test_a_connection_has_every_timeout(postgres):
    only_postgresql()
    settings = msgspec.structs.replace(postgres, statement_timeout_s=7.0)
    with contextlib.closing(connect(settings, application="test")) as connection:
        names = ("statement_timeout", "idle_in_transaction_session_timeout", "client_connection_check_interval")
        shown = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in names}
        assert shown == dict(zip(names, ("7s", "10s", "5s"), strict=True))
        assert connection.info.get_parameters()["tcp_user_timeout"] == "7000"
