"""``dmpctl local setup-dnsmasq``: nothing is written that dnsmasq does not accept, and everything can be taken back."""

import shutil

import pytest

from dmpd.cli import dmpctl
from dmpd.local_registry import dnsmasq_setup
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.runtime.config import load
from tests.support.services import unavailable


@pytest.fixture
def router(tmp_path):
    if shutil.which("dnsmasq") is None:
        unavailable("dnsmasq is not installed")
    (tmp_path / "dnsmasq.d").mkdir()
    (tmp_path / "dnsmasq.conf").write_text("interface=lo\n")
    (tmp_path / "local-registry.yaml").write_text(f"rae: R1\nstate_dir: {tmp_path}/state\n")
    return tmp_path


def setup(router, *more):
    files = ["--dnsmasq-conf", f"{router}/dnsmasq.conf", "--dnsmasq-dir", f"{router}/dnsmasq.d"]
    return dmpctl.main(["local", "setup-dnsmasq", "--config", f"{router}/local-registry.yaml", *files, *more])


def written(router):
    found = [*router.glob("dnsmasq.d/*"), *router.glob("local-registry.d/*"), *router.glob("state/*")]
    return {path.name: path.read_text() for path in found}


def test_it_shows_the_change_writes_it_and_takes_it_back(router, capsys):
    assert setup(router) == 0
    shown = capsys.readouterr().out
    assert f"+dhcp-script={dnsmasq_setup.HOOK}" in shown
    assert set(written(router)) == {"dmpd.conf", "20-dnsmasq.yaml"}
    assert f"dhcp-script={dnsmasq_setup.HOOK}\n" in written(router)["dmpd.conf"]
    lan = load(router / "local-registry.yaml", LocalRegistrySettings).lan
    assert (lan.lease_file, lan.lease_socket) == ("/var/lib/misc/dnsmasq.leases", f"{router}/state/lease.sock")
    before = written(router)
    assert setup(router) == 0, "twice is once"
    assert written(router) == before
    assert setup(router, "--undo") == 0
    assert f"-dhcp-script={dnsmasq_setup.HOOK}" in capsys.readouterr().out
    assert written(router) == {}
    assert setup(router, "--undo") == 1


def test_a_dry_run_writes_nothing(router, capsys):
    assert setup(router, "--dry-run") == 0
    assert "+dhcp-script=" in capsys.readouterr().out
    assert written(router) == {}


def test_what_dnsmasq_does_not_accept_is_not_written(router, capsys):
    (router / "dnsmasq.d/site.conf").write_text("dhcp-rage=10.0.0.1,10.0.0.9\n")
    before = written(router)
    assert setup(router) == 78
    assert "dnsmasq --test:" in (said := capsys.readouterr().err)
    assert "bad option" in said
    assert written(router) == before


@pytest.mark.parametrize("place", ["dnsmasq.conf", "dnsmasq.d/site.conf"])
def test_another_script_is_left_alone(router, capsys, place):
    (router / place).write_text("dhcp-script = /usr/local/bin/mine\n")
    before = written(router)
    assert setup(router) == 78
    assert "/usr/local/bin/mine" in capsys.readouterr().err
    assert written(router) == before


def test_without_dnsmasq_it_says_so(router, capsys):
    (router / "dnsmasq.d").rmdir()
    assert setup(router) == 78
    assert "is dnsmasq installed?" in capsys.readouterr().err


def test_a_commented_script_is_none():
    assert dnsmasq_setup.scripts_in(["#dhcp-script=/bin/echo\n  # dhcp-script=x\n"]) == []
    assert dnsmasq_setup.scripts_in(["port=0\n dhcp-script=/bin/a b\n"]) == ["/bin/a b"]
