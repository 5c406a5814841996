"""Which sources a RAE's configuration asks for."""

import pytest

from dmpd.local_registry.daemon import _lan
from dmpd.local_registry.settings import LanSettings


@pytest.mark.parametrize(
    ("lan", "names"),
    [
        (LanSettings(), []),
        (LanSettings(lease_file="/none"), ["leases"]),
        (LanSettings(lease_file="/none", lease_socket="/none.sock"), ["leases"]),
        (LanSettings(lease_socket="/none.sock"), []),
        (LanSettings(lease_file="/none", interface="br-lan"), ["leases", "neighbours", "ssdp"]),
        (LanSettings(interface="br-lan", ssdp=False), ["neighbours"]),
        (LanSettings(ssdp=True), []),
    ],
)
def test_sources_are_what_the_configuration_says(lan, names):
    assert [source.name for source in _lan(lan).sources] == names


def test_the_script_is_listened_to_where_the_configuration_says(tmp_path):
    path = tmp_path / "lease.sock"
    (without,) = _lan(LanSettings(lease_file="/none")).sources
    (source,) = _lan(LanSettings(lease_file="/none", lease_socket=str(path))).sources
    assert without._socket is None
    source._turn()
    assert path.is_socket()
    source._socket.close()


def test_a_socket_without_a_lease_file_is_told_to_be_of_no_use(caplog):
    _lan(LanSettings(lease_socket="/none.sock"))
    assert "lan.lease_socket is of no use without lan.lease_file" in caplog.messages
