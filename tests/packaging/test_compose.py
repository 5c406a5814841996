"""compose.yaml as compose reads it: its variables are settings, its times and sizes fit. test_image.py runs it."""

import re
import shutil
import subprocess

import pytest
import yaml

from dmpd.cli.config import CloudConfig
from dmpd.cli.daemons import PROGRAMS
from dmpd.lab.layout import ETC
from dmpd.runtime.config import load
from dmpd.stream import memory
from tests.support.composed import FOLDER
from tests.support.program_files import deadline_s
from tests.support.services import unavailable

pytestmark = pytest.mark.slow
COCKROACHDB = ("-f", "compose.cockroachdb.yaml")
DAEMONS = [name for name in PROGRAMS if (ETC / "supervisor" / f"{name}.conf").exists()]
OURS = (*DAEMONS, "migrate")


def composed(*more):
    """What compose makes of the files, merged and with its defaults."""
    program = shutil.which("docker-compose")
    if program is None:
        unavailable("docker-compose is not installed")
    command = [program, "-p", "dmpd", "-f", "compose.yaml", *more, "config"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


@pytest.fixture(scope="module", params=[(), COCKROACHDB], ids=["postgresql", "cockroachdb"])
def services(request):
    return composed(*request.param)


@pytest.fixture
def conninfo(services):
    """By the database that stands there, each of our services must say this."""
    if "cockroach" in services["database"]["image"]:
        return "host=database port=26257 dbname=dmpd user=dmpd sslmode=disable"
    return "host=database dbname=dmpd user=dmpd"


def config_of(service):
    return load(FOLDER / "dmpd.yaml", CloudConfig, environment=service["environment"])


def seconds(text):
    minutes, whole = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text).groups()
    return 60 * int(minutes or 0) + int(whole or 0)


def test_all_parts_are_there(services):
    assert set(services) == {"mosquitto", "kafka", "database", *OURS}


@pytest.mark.parametrize("name", OURS)
def test_each_variable_is_a_setting_and_each_daemon_is_confined(services, conninfo, name):
    service = services[name]
    config = config_of(service)
    assert config.kafka.bootstrap_servers == "kafka:9092"
    assert config.database.conninfo == conninfo
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["command"] == [name]


@pytest.mark.parametrize("name", DAEMONS)
def test_a_stop_is_a_drain(services, name):
    assert seconds(services[name]["stop_grace_period"]) >= deadline_s(config_of(services[name]), name) + 10


def test_a_crowd_has_files_enough_at_both_ends(services):
    canary = config_of(services["canary"]).canary
    for name in ("mosquitto", "canary"):
        files = services[name]["ulimits"]["nofile"]
        assert files > 3 * (canary.clients + canary.control_clients)


def test_the_memory_limit_holds_all_partitions(services):
    limit = services["cloud-registry"]["mem_limit"]
    limit = int(limit) if str(limit).isdigit() else int(str(limit).removesuffix("m")) << 20
    config = config_of(services["cloud-registry"])
    settings = config.cloud_registry.stream
    chosen = memory.sizes(settings, config.topics.partitions, limit)
    assert chosen > memory.smallest(settings), chosen


def test_mosquitto_runs_with_the_shipped_rules():
    """The template's lines, but for folders, port and address."""
    shipped = (ETC / "mosquitto" / "mosquitto.conf.in").read_text()
    shipped = shipped.replace("@PLUGIN@", "/usr/lib/mosquitto_dynamic_security.so")
    shipped = shipped.replace("@DIR@/dynsec.json", "/mosquitto/data/dynsec.json")
    shipped = shipped.replace("@PORT@ @ADDRESS@", "8883").replace("@DIR@/acl", "/mosquitto/config/acl")
    shipped = shipped.replace("persistence_location @DIR@/", "persistence_location /mosquitto/data/")
    shipped = shipped.replace("@DIR@/server.", "/mosquitto/config/tls/mosquitto.").replace(
        "@DIR@/", "/mosquitto/config/tls/"
    )
    assert lines(shipped) == lines((FOLDER / "mosquitto.conf").read_text())


def lines(text):
    return [line for line in text.splitlines() if line and not line.startswith("#")]
