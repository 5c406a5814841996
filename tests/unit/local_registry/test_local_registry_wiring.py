"""Which sources a RAE's configuration asks for."""

import pytest

from dmpd.local_registry.daemon import _sources
from dmpd.local_registry.settings import LanSettings


@pytest.mark.parametrize(
    ("lan", "names"),
    [
        (LanSettings(), []),
        (LanSettings(lease_file="/none"), ["leases"]),
        (LanSettings(lease_file="/none", interface="br-lan"), ["leases", "neighbours", "ssdp"]),
        (LanSettings(interface="br-lan", ssdp=False), ["neighbours"]),
        (LanSettings(ssdp=True), []),
    ],
)
def test_sources_are_what_the_configuration_says(lan, names):
    assert [source.name for source in _sources(lan)] == names
