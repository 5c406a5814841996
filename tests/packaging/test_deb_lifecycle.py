"""The package's whole life on a bare Debian under a real supervisord, with a broker, a LAN and devices on it.

On Debian 12 all of it. On Debian 13, which has another Python, dpkg and supervisor, what differs with them: from the
installation by the other page of the guide to the purge.
"""

from pathlib import Path

import pytest

from tests.support import deb_life, debian, documented

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.services, pytest.mark.timeout(1800)]
FILE = "tests/packaging/test_deb_lifecycle.py"
PAGES = {"bookworm": ("rae.md", "dnsmasq.md"), "trixie": ("operations.md",)}


def arrived(life: deb_life.Life) -> None:
    life.router.apt("update")
    deb_life.installed_on_a_bare_system(life, debian.built("amd64"))
    deb_life.enrolled(life)
    deb_life.devices_arrive(life)


def updated(life: deb_life.Life, folder: Path) -> None:
    deb = debian.built("amd64")
    newer, newest = (deb_life.repacked(deb, suffix, folder) for suffix in ("+1", "+2"))
    deb_life.dnsmasq_tells_of_leases(life)
    deb_life.certificate_renewed(life)
    deb_life.upgraded_in_flight(life, newer)
    deb_life.stopped_stays_stopped(life, newest)
    deb_life.downgrade_is_refused(life, deb, newest)
    deb_life.removed_and_installed_again(life, newest)


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_from_installation_to_purge(tmp_path: Path, suite: str) -> None:
    with deb_life.beginning(suite) as life:
        arrived(life)
        if suite == "bookworm":
            updated(life, tmp_path)
        else:
            deb_life.metrics_over_its_socket(life)
        deb_life.purged(life)
    assert documented.unsaid(FILE, *PAGES[suite]) == set()
