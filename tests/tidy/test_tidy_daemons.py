"""Every daemon is known wherever daemons are installed, run and watched: a further one fails here until it is."""

import re

import pytest
import yaml

from dmpd.cli import dmpd
from dmpd.cli.config import CloudConfig
from dmpd.cli.daemons import PROGRAMS, bind_of
from dmpd.lab.layout import CHECKOUT, ETC
from dmpd.runtime.config import load
from dmpd.runtime.health import parse_bind
from tests.support.program_files import EDGE, deadline_s, program_file

NOT_YET: set[str] = set()
"""No program file yet; with it everything else is asked for."""
OF_THE_CLOUD = [name for name in PROGRAMS if name not in NOT_YET]
IMAGE = CHECKOUT / "packaging" / "docker"
ALL = (*OF_THE_CLOUD, EDGE)
METRICS = {"cloud-registry": ("dmpd_registry_", "dmpd_stream_")}
"""How the names of a daemon's own metrics begin, where it is not after its program."""


def test_each_has_a_program_file():
    assert {name for name in PROGRAMS if not (ETC / "supervisor" / f"{name}.conf").exists()} == NOT_YET


@pytest.mark.parametrize("name", ALL)
def test_its_program_file_restarts_crashes_drains_and_bounds_its_log(name):
    assert name in dmpd.COMMANDS
    file = program_file(name)
    config = "DMPD_LOCAL_REGISTRY_CONFIG" if name == EDGE else "DMPD_CONFIG"
    assert file["command"] == f"%(ENV_DMPD)s {name} --config %(ENV_{config})s"
    assert (file["autorestart"], file["exitcodes"]) == ("unexpected", "0,64,78")
    assert file.getint("startretries") >= 1_000_000
    assert file.getint("stopwaitsecs") >= deadline_s(CloudConfig(), name) + 10
    assert (file["stopsignal"], file["stopasgroup"], file["killasgroup"]) == ("TERM", "false", "true")
    assert file["redirect_stderr"] == "true"
    assert file["stdout_logfile"] == f"%(ENV_DMPD_LOG)s/{name}.log"
    assert (file["stdout_logfile_maxbytes"], file["stdout_logfile_backups"]) == ("5MB", "2")


def test_supervisord_is_asked_by_its_unix_socket_only():
    for path in (ETC / "supervisor").glob("*.conf"):
        assert "inet_http_server" not in path.read_text(), path
    assert "[unix_http_server]\n" in (ETC / "supervisor" / "supervisord.conf").read_text()
    assert "\nchmod=0700\n" in (ETC / "supervisor" / "supervisord.conf").read_text()


@pytest.mark.parametrize("name", OF_THE_CLOUD)
def test_its_container_drains_on_stop_and_is_asked_by_prometheus(name):
    service = yaml.safe_load((IMAGE / "compose.yaml").read_text())["services"][name]
    assert service["command"] == [name]
    assert float(service["stop_grace_period"].removesuffix("s")) >= deadline_s(CloudConfig(), name) + 10
    assert re.fullmatch(r"\d+m", str(service["mem_limit"]))
    text = (IMAGE / "dmpd.yaml").read_text()
    assert getattr(load(IMAGE / "dmpd.yaml", CloudConfig), name.replace("-", "_")).health_bind.startswith("0.0.0.0:")
    assert f"\n{name.replace('-', '_')}:\n  health_bind: " in text


def test_no_two_listen_at_the_same_place():
    for config in (CloudConfig(), load(IMAGE / "dmpd.yaml", CloudConfig), load(ETC / "dmpd.yaml", CloudConfig)):
        binds = [parse_bind(bind_of(config, name)) for name in PROGRAMS]
        assert len(set(binds)) == len(binds), binds


@pytest.mark.parametrize("name", ALL)
def test_the_guide_the_example_and_the_alerts_know_it(name):
    guide = (CHECKOUT / "docs" / "operations.md").read_text()
    section = guide.partition("\n## The cloud, under supervisord\n")[2].partition("\n## ")[0]
    assert f"`{name}`" in section
    example = (ETC / ("local-registry.yaml" if name == EDGE else "dmpd.yaml")).read_text()
    assert name == EDGE or f"\n{name.replace('-', '_')}:" in example
    rules = yaml.safe_load((ETC / "prometheus" / "dmpd-alerts.yaml").read_text())["groups"][0]["rules"]
    prefixes = METRICS.get(name, (f"dmpd_{name.replace('-', '_')}_",))
    assert [rule["alert"] for rule in rules if any(prefix in rule["expr"] for prefix in prefixes)], "no rule watches it"


@pytest.mark.parametrize("name", OF_THE_CLOUD)
def test_what_it_may_do_is_listed(name):
    guide = (CHECKOUT / "docs" / "operations.md").read_text()
    rights = guide.partition("\n## Who may do what\n")[2]
    assert f"({name})" in rights or f"`svc-{name}`" in rights
