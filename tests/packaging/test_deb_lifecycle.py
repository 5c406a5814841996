"""The package's whole life on a bare Debian 12 under a real supervisord, with a broker, a LAN and devices on it."""

from pathlib import Path

import pytest

from tests.support import deb_life, debian, documented

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.services, pytest.mark.timeout(1800)]


def test_from_installation_to_purge(tmp_path: Path) -> None:
    with deb_life.beginning("bookworm") as life:
        deb = debian.built("amd64")
        newer, newest = (deb_life.repacked(deb, suffix, tmp_path) for suffix in ("+1", "+2"))
        life.router.apt("update")
        deb_life.installed_on_a_bare_system(life, deb)
        deb_life.enrolled(life)
        deb_life.devices_arrive(life)
        deb_life.dnsmasq_tells_of_leases(life)
        deb_life.certificate_renewed(life)
        deb_life.upgraded_in_flight(life, newer)
        deb_life.stopped_stays_stopped(life, newest)
        deb_life.downgrade_is_refused(life, deb, newest)
        deb_life.removed_and_installed_again(life, newest)
        deb_life.purged(life)
    assert documented.unsaid("tests/packaging/test_deb_lifecycle.py") == set()
