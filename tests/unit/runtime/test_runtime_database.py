"""What is said of a database that cannot be reached."""

import pytest

from dmpd.runtime.database import DatabaseUnreachableError, connect
from dmpd.runtime.settings import DatabaseSettings


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
