"""The image, built and run without a registry against the lab's servers: whole, small, drained, bounded."""

import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import yaml
from confluent_kafka import Producer
from msgspec import Raw

from dmpd.cli.daemons import PROGRAMS
from dmpd.lab.server import free_ports
from dmpd.model.codec import encode
from dmpd.model.record import DeviceRecord
from dmpd.model.topics import info_topic, partition_of
from dmpd.runtime import exit_codes
from dmpd.runtime.kafka_admin import group_lag
from dmpd.stream.settings import MEBIBYTE
from tests.support import composed, document_blocks, yardstick
from tests.support import docker as dockers
from tests.support.cgroup import MEMORY, PeakMemory
from tests.support.messages import checkpoint, session_id
from tests.support.services import public_folder
from tests.support.stream_daemon import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]
IMAGE = "dmpd:ci"
USER = 10001
PARTITIONS = 4
BUILD_S = 180
BESIDE = 2
"""Other tests run beside it."""
OVER_BASE_BYTES = 90_000_000
SAFE = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")
LIMIT_BYTES = 384 * MEBIBYTE
LIMIT = ("--memory", str(LIMIT_BYTES), "--memory-swap", str(LIMIT_BYTES))
BACKLOG = 60_000
PADDING = "x" * 2000
CROWD, CONTROL = 20, 4
CANARY = {
    f"DMPD__CANARY__{name}": str(value)
    for name, value in {
        "CLIENTS": CROWD,
        "CONTROL_CLIENTS": CONTROL,
        "JITTER": 0,
        "PROCESSES": 1,
        "BEFORE_S": 1.5,
        "RAMP_S": 0.5,
        "FLASH_S": 2,
        "AFTER_S": 1.5,
        "REQUESTS": 5,
        "PROBES": 2,
        "THRESHOLDS__CONTROL_DURING_P99_MAX_S": 15,
        "THRESHOLDS__CONTROL_FLOOR_S": 15,
        "THRESHOLDS__LATE_AFTER_S": 60,
        "THRESHOLDS__LAG_ZERO_MAX_S": 60,
        "THRESHOLDS__END_TO_END_P99_MAX_S": 60,
    }.items()
}
"""A crowd at once, for what containers are shown by it; its times are another test's."""


class Built:
    def __init__(self, docker, said, took_s, slowness):
        self.docker, self.said, self.took_s, self.slowness = docker, said, took_s, slowness


@pytest.fixture(scope="module")
def built():
    with dockers.running() as docker:
        yield Built(docker, *docker.build(IMAGE), yardstick.slowness())


@pytest.fixture
def docker(built):
    return built.docker


class Site:
    """What the containers get: variables, and the folder of the database's socket."""

    def __init__(self, kafka, database):
        self.kafka, self.database = kafka, database
        self.topics = {name: kafka.unique(name) for name in ("info", "rsp", "cmd", "info_dead")}
        self.group = kafka.unique("group")
        socket = database.conninfo.split()[0].removeprefix("host=")
        for path, mode in ((socket, 0o755), (f"{socket}/.s.PGSQL.5432", 0o777)):
            Path(path).chmod(mode)
        self.mount = f"{socket}:{socket}"
        ports = dict(zip(PROGRAMS, free_ports(len(PROGRAMS)), strict=True))
        self.binds = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        settings = {f"{name.upper().replace('-', '_')}__HEALTH_BIND": f"0.0.0.0:{port}" for name, port in ports.items()}
        settings |= {
            "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "DATABASE__CONNINFO": database.conninfo,
            "TOPICS__PARTITIONS": PARTITIONS,
            "CLOUD_REGISTRY__STREAM__TOPIC": self.topics["info"],
            "CLOUD_REGISTRY__STREAM__DEAD_LETTER_TOPIC": self.topics["info_dead"],
            "CLOUD_REGISTRY__STREAM__GROUP": self.group,
        } | {f"TOPICS__{name.upper()}": topic for name, topic in self.topics.items()}
        self.variables = {f"DMPD__{name}": str(value) for name, value in settings.items()}

    def lag(self):
        return sum(group_lag(self.kafka.settings, self.group, self.topics["info"]).values())

    def rows(self, rae="R-%"):
        with psycopg.connect(self.database.conninfo) as connection:
            return connection.execute("SELECT count(*) FROM device_session WHERE rae LIKE %s", [rae]).fetchone()[0]

    def canary_run(self):
        """Verdict; lost, wrong, reordered; sent: of the run that has ended."""
        with psycopg.connect(self.database.conninfo) as connection:
            ended = "SELECT verdict, lost, wrong, reordered, sent FROM canary_run WHERE ended_at IS NOT NULL"
            return connection.execute(ended).fetchone()

    def produce(self, records):
        """Each of ``(RAE, number of the session, record, rev)``; all of them are in Kafka afterwards."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 5})
        for rae, number, record, rev in records:
            message = checkpoint(rev, record, session=session_id(number))
            value = encode(message).replace(b'"RAE-7"', f'"{rae}"'.encode())
            key = info_topic(rae, message.session).encode()
            producer.produce(self.topics["info"], value, key, partition_of(rae, PARTITIONS))
            producer.poll(0)
        assert producer.flush(60) == 0


@pytest.fixture(scope="module")
def site(kafka, postgres_server):
    with postgres_server.database() as database:
        yield Site(kafka, database)


@pytest.fixture(scope="module")
def migrated(built, site):
    """compose.yaml's project with a broker, and the migration done."""
    with public_folder() as root:
        folder = composed.copied(root, f"canary={CROWD + CONTROL}")
        user = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["mosquitto"]["user"]
        with composed.mosquitto(folder, user) as port:
            broker = {"DMPD__MQTT__HOST": "127.0.0.1", "DMPD__MQTT__PORT": str(port)}
            mine = {
                "network_mode": "host",
                "environment": site.variables | CANARY | broker,
                "volumes": [site.mount],
                "healthcheck": {"interval": "5s", "timeout": "30s"},
            }
            project = composed.Composed(built.docker, folder, IMAGE, dict.fromkeys(("migrate", *PROGRAMS), mine))
            project.up("migrate")
            project.wait(lambda: project.state("migrate")["Status"] == "exited", "migrated", "migrate")
            assert project.state("migrate")["ExitCode"] == 0, project.logs("migrate")
            yield project


@pytest.fixture
def project(migrated):
    """None of the daemons runs, before and after."""
    yield migrated
    migrated("rm", "-f", "-s", *PROGRAMS)


def test_it_builds_in_time_is_small_and_says_what_it_is(built):
    said = [line for line in built.said.splitlines() if line.startswith("image: ")]
    assert said[-2:-1] == [f"image: {IMAGE} ..."], "progress"
    assert re.fullmatch(rf"image: {IMAGE} in \d+ s", said[-1]), said
    assert built.took_s <= BUILD_S * max(BESIDE, built.slowness)
    over = built.docker.inspect(IMAGE)["Size"] - built.docker.inspect(dockers.BASE)["Size"]
    print(f"image: built in {built.took_s:.0f} s, {over / 1e6:.1f} MB over its base")
    assert over <= OVER_BASE_BYTES
    config = built.docker.inspect(IMAGE)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"] == ["CMD", "dmpctl", "health", "--of-pid", "1"]
    assert config["Labels"]["org.opencontainers.image.title"] == "dmpd"
    assert config["Labels"]["org.opencontainers.image.version"].startswith("0.")
    assert config["Labels"]["org.opencontainers.image.revision"]


def test_its_commands_work_and_its_file_is_good(docker):
    run = ("run", "--rm", "--network", "none", *SAFE)
    assert docker(*run, IMAGE, "--version").stdout.startswith("dmpd 0.")
    assert docker(*run, IMAGE, "check-config").stdout == "/etc/dmpd/dmpd.yaml: good\n"
    wrong = docker(*run, "-e", "DMPD__LOG__LEVEL=loud", IMAGE, "bridge", check=False)
    assert wrong.returncode == exit_codes.CONFIG
    assert "environment DMPD__LOG__LEVEL log.level: expected one of" in wrong.stderr
    assert docker(*run, IMAGE, check=False).stdout.startswith("usage: dmpd")


def test_nothing_of_the_build_is_left_in_it(docker):
    listing = "ls /venv /wheels /src /run/secrets /root/.cache 2>/dev/null; find / -xdev -name '*.whl'"
    done = docker("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", IMAGE, "-c", listing, check=False)
    assert done.stdout == ""


def test_the_guides_commands_are_right(docker, tmp_path):
    """As they stand there, with a docker on the path that asks the tests' daemon."""
    client = tmp_path / "docker"
    client.write_text(f'#!/bin/sh\nexec {dockers.DOCKER} -H {docker.host} "$@"\n')
    client.chmod(0o755)
    docker("tag", IMAGE, "dmpd")
    (block,) = document_blocks.of_kind("image")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for command in block.commands:
        done = subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert len(block.commands) >= 3


def test_compose_has_every_daemon_healthy_confined_reloaded_and_drained_on_stop(site, project, docker):
    """All of them at once; the crowd's verdict says that messages go their whole way through these containers."""
    first = ("bridge", "cloud-registry", "access")
    project.up(*first)
    project.wait_ready({name: site.binds[name] for name in first})
    project.up("canary")
    project.wait(site.canary_run, "a verdict", "canary", "bridge", "cloud-registry")
    verdict, *found, sent = site.canary_run()
    assert verdict in ("pass", "degraded"), site.canary_run()
    assert found == [0, 0, 0]
    assert sent > CROWD
    (block,) = document_blocks.of_kind("tests/packaging/test_image.py")
    for command in block.commands:
        smaller = command.replace("--clients 500", f"--clients {CROWD}")
        done = project.inside("canary", "sh", "-c", smaller, check=False)
        assert done.returncode in (exit_codes.OK, exit_codes.FAILED), f"{command}\n{done.stdout}{done.stderr}"
    project.wait_ready(site.binds)
    for program in PROGRAMS:
        looks = "tr '\\0' ' ' </proc/1/cmdline; echo; cat /proc/self/status; touch /etc/dmpd/x 2>&1"
        said = project.inside(program, "sh", "-c", looks, check=False).stdout
        assert said.startswith("/usr/bin/tini -- dmpd "), said
        assert "CapEff:\t0000000000000000\n" in said
        assert f"Uid:\t{USER}\t" in said
        assert "Read-only file system" in said
        assert f"{program} has begun anew" in project.inside(program, "dmpctl", "reload", program).stdout
    project.wait_ready(site.binds)
    site.produce(("D-1", number, DeviceRecord(), 1) for number in range(20_000))
    project.wait(lambda: site.rows("D-%"), "rows come", "cloud-registry")
    project("stop")
    for program in PROGRAMS:
        container = docker.inspect(project.container(program))
        state = container["State"]
        assert container["RestartCount"] == 0, project.logs(program)
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), project.logs(program)
        assert f"{program} is stopped" in project.logs(program)
    assert site.rows("D-%") == 20_000 - site.lag(), "what was taken from Kafka is in rows, and nothing else"


def test_384_mib_hold_four_partitions_under_backlog(site, project, docker):
    """The sink stands still until every ring is full, then everything becomes rows; nothing of it is killed.

    The page cache aside, what it took leaves a tenth of the limit to the kernel, as ``dmpd.stream.memory`` reckons.
    """
    raes = [f"R-{number}" for number in range(64)]
    assert {partition_of(rae, PARTITIONS) for rae in raes} == set(range(PARTITIONS))
    site.produce(
        (raes[number % len(raes)], number % 5000, padded(number), 1 + number // 5000) for number in range(BACKLOG)
    )
    with psycopg.connect(site.database.conninfo) as locked:
        locked.execute("LOCK TABLE device_session IN ACCESS EXCLUSIVE MODE")
        with running(site, docker, *LIMIT) as container, PeakMemory(MEMORY / "docker" / container) as peak:

            def said():
                return f"{docker.inspect(container)['State']} {docker.logs(container)[-3000:]}"

            wait_for(lambda: paused(docker, container) == PARTITIONS, said, timeout_s=120)
            locked.rollback()
            wait_for(lambda: site.lag() == 0, said, timeout_s=240)
            sizes = r"rings of .* batches of up to .* for 4 partitions, memory limit 384 MiB"
            sized = re.search(sizes, docker.logs(container))
            assert sized, docker.logs(container)
            print(f"image: {peak.bytes / MEBIBYTE:.0f} MiB at most under backlog ({peak.parts}), {sized[0]}")
            assert 0 < peak.bytes <= LIMIT_BYTES * 0.9
            docker("stop", "-t", 60, container)
            state = docker.inspect(container)["State"]
            assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert site.rows() == len({(number % len(raes), number % 5000) for number in range(BACKLOG)})


def padded(number):
    return DeviceRecord(attributes={"padding": Raw(json.dumps(PADDING + str(number)).encode())})


@contextmanager
def running(site, docker, *options):
    """The Cloud Registry as the guide runs it alone; removed at the end."""
    variables = [word for name, value in site.variables.items() for word in ("-e", f"{name}={value}")]
    everything = ("run", "-d", "--network", "host", *SAFE, *variables, "-v", site.mount, *options, IMAGE)
    container = docker(*everything, "cloud-registry").stdout.strip()
    try:
        yield container
    finally:
        docker("rm", "-f", container, check=False)


def paused(docker, container):
    """How many partitions are paused because their rings are full."""
    done = docker("exec", container, "dmpctl", "status", "cloud-registry", "--json", check=False)
    (part,) = json.loads(done.stdout or "[{}]")
    return sum(one["paused"] for one in part.get("details", {}).get("partitions", {}).values())
