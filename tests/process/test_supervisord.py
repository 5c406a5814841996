"""The daemons under supervisord, both versions, with the shipped files: whatever ends, what is expected begins."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml

from dmpd.cli.daemons import PROGRAMS
from dmpd.lab.layout import ETC
from dmpd.model.codec import encode
from dmpd.model.record import DeviceRecord
from dmpd.model.topics import info_topic, partition_of
from dmpd.runtime import exit_codes, health
from dmpd.runtime.kafka_admin import group_lag, list_end_offsets
from tests.support.messages import RAE, checkpoint, session_id
from tests.support.services import public_folder
from tests.support.stream_daemon import wait_for
from tests.support.supervisord import DAEMONS, DRAIN_S, Supervisord

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(300)]
PARTITIONS = 2
BIN = Path(sys.executable).parent


class Site:
    """One supervisord with all daemons, their configuration, and the servers that they use."""

    def __init__(self, root, version, kafka, mosquitto, database):
        self.supervisord = Supervisord(root, version)
        self.kafka, self.database = kafka, database
        self.topics = {name: kafka.unique(name) for name in ("info", "rsp", "cmd", "info_dead")}
        self.group = kafka.unique("group")
        self._bridge = mosquitto.settings("svc-bridge")
        self._access = mosquitto.settings("svc-access")
        self._rae = mosquitto.settings("rae-1")
        self.cloud = self.supervisord.path("/etc/dmpd/dmpd.yaml")
        self.edge = self.supervisord.path("/etc/dmpd/local-registry.yaml")
        self.binds = {name: f"unix:{self.supervisord.path(f'/run/dmpd/{name}.sock')}" for name in PROGRAMS}
        self.binds["local-registry"] = f"unix:{self.supervisord.path('/var/lib/dmpd/control.sock')}"

    def configure(self, **more):
        """Write both files anew; ``more``: sections of the cloud's."""
        sizes = {"partitions": PARTITIONS, "replication_factor": 1, "min_insync_replicas": 1}
        streams = {"topic": self.topics["info"], "dead_letter_topic": self.topics["info_dead"], "group": self.group}
        self.cloud.write_text(
            yaml.safe_dump(
                {
                    "kafka": {"bootstrap_servers": self.kafka.bootstrap_servers},
                    "topics": self.topics | sizes,
                    "mqtt": mqtt_section(self._bridge),
                    "database": {"conninfo": self.database.conninfo},
                    "bridge": {"health_bind": self.binds["bridge"]},
                    "cloud_registry": {"health_bind": self.binds["cloud-registry"], "stream": streams},
                    "access": {
                        "health_bind": self.binds["access"],
                        "cert_file": self._access.cert_file,
                        "key_file": self._access.key_file,
                    },
                    "canary": {"health_bind": self.binds["canary"]},
                }
                | more
            )
        )
        state = str(self.supervisord.path("/var/lib/dmpd"))
        self.edge.write_text(yaml.safe_dump({"rae": "rae-1", "state_dir": state, "mqtt": mqtt_section(self._rae)}))

    def run(self, program, *words):
        command = [str(BIN / program), *words, "--config", str(self.cloud)]
        return subprocess.run(command, capture_output=True, text=True, timeout=2 * DRAIN_S, check=False)

    def begin(self, name):
        """A daemon beside supervisord's."""
        config = self.edge if name == "local-registry" else self.cloud
        command = [str(BIN / "dmpd"), name, "--config", str(config)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def status(self, name):
        try:
            return json.loads(health.fetch(self.binds[name], "/status")[1])
        except OSError:
            return {"state": "gone"}

    def wait_ready(self, name):
        return wait_for(
            lambda: (found := self.status(name))["state"] == "ready" and found,
            lambda: f"{self.status(name)} {self.supervisord.log(name)[-2000:]}",
            timeout_s=DRAIN_S,
        )

    def make_good(self):
        """What each test begins with: good files, everything up and ready."""
        self.configure()
        for name in DAEMONS:
            if self.supervisord.state(name) != "RUNNING":
                self.supervisord.ctl("start", name)
            self.supervisord.wait_running(name)
            self.wait_ready(name)

    def rows(self):
        with psycopg.connect(self.database.conninfo, autocommit=True) as connection:
            return connection.execute("SELECT count(*) FROM device_session WHERE rae = %s", [RAE]).fetchone()[0]


def mqtt_section(settings):
    return {
        "port": settings.port,
        "ca_file": settings.ca_file,
        "cert_file": settings.cert_file,
        "key_file": settings.key_file,
    }


@pytest.fixture(scope="module", params=["4.2.5", "4.3.0"])
def running_site(request, kafka, mosquitto, postgres_server):
    with public_folder() as root, postgres_server.database() as database:
        site = Site(root, request.param, kafka, mosquitto, database)
        site.configure()
        done = site.run("dmpd", "migrate")
        assert done.returncode == exit_codes.OK, done.stderr
        done = site.run("dmpctl", "canary", "disable", "its crowd is for other tests")
        assert done.returncode == exit_codes.OK, done.stderr
        site.supervisord.start()
        yield site
        site.supervisord.end()


@pytest.fixture
def site(running_site):
    running_site.make_good()
    return running_site


def test_who_crashes_is_started_again(site):
    before = {name: site.supervisord.pid(name) for name in DAEMONS}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    for name, pid in before.items():
        site.supervisord.wait_running(name, but=pid)
        site.wait_ready(name)


def test_stop_drains_and_exits_0(site):
    """Of all at once; and the cloud registry in the middle of a backlog: what is in rows is committed."""
    from confluent_kafka import Producer

    producer, offsets = Producer({"bootstrap.servers": site.kafka.bootstrap_servers}), []
    for number in range(20_000):
        message = checkpoint(1, DeviceRecord(), session=session_id(number))
        key = info_topic(RAE, message.session)
        producer.produce(
            site.topics["info"],
            encode(message),
            key.encode(),
            partition_of(RAE, PARTITIONS),
            on_delivery=lambda _, record: offsets.append(record.offset()),
        )
        producer.poll(0)
    assert producer.flush(DRAIN_S) == 0
    wait_for(lambda: site.rows() > 0, "rows come", timeout_s=DRAIN_S)
    logged = len(site.supervisord.log())
    stopped = site.supervisord.ctl("stop", *DAEMONS)
    assert sorted(stopped.stdout.splitlines()) == sorted(f"{name}: stopped" for name in DAEMONS)
    said = site.supervisord.log()[logged:]
    for name in DAEMONS:
        assert f"stopped: {name} (exit status 0)" in said
    assert "SIGKILL" not in said
    ends = list_end_offsets(site.kafka.settings, site.topics["info"])
    lag = group_lag(site.kafka.settings, site.group, site.topics["info"])
    committed = ends[partition_of(RAE, PARTITIONS)] - lag[partition_of(RAE, PARTITIONS)]
    assert site.rows() == sum(offset < committed for offset in offsets) > 0


def test_bad_configuration_is_exited_with_its_sentence_and_no_loop(site):
    site.supervisord.ctl("stop", *DAEMONS)
    site.configure(bridge={"health_bind": "nowhere"})
    site.edge.write_text("rae: rae-1\nmqtt: {port: 0}\n")
    logged = len(site.supervisord.log())
    site.supervisord.ctl("start", *DAEMONS)
    cloud = 'dmpd.yaml:6 bridge.health_bind: expected host:port or unix:/path, got "nowhere"'
    sentences = dict.fromkeys(PROGRAMS, cloud) | {"local-registry": "local-registry.yaml:2 mqtt.port: expected"}
    for name in DAEMONS:
        wait_for(
            lambda n=name: site.supervisord.state(n) == "EXITED",
            lambda: site.supervisord.ctl("status").stdout,
            timeout_s=DRAIN_S,
        )
        said = site.supervisord.log()[logged:]
        assert said.count(f"spawned: '{name}'") == 1
        assert f"exited: {name} (exit status 78; expected)" in said
        assert sentences[name] in site.supervisord.ctl("tail", name).stdout


def test_a_daemon_beside_a_living_one_is_refused_in_a_sentence(site):
    pids = {name: site.supervisord.pid(name) for name in DAEMONS}
    second = {name: site.begin(name) for name in DAEMONS}
    for name, process in second.items():
        _, said = process.communicate(timeout=DRAIN_S)
        assert process.returncode == exit_codes.INTERNAL  # so that supervisord tries again until the first has ended
        assert f"is held by process {pids[name]}: one instance only" in said
        assert site.status(name)["pid"] == pids[name]


def test_the_daemons_of_a_killed_supervisord_drain_and_make_room_for_the_next_ones(site):
    old = {name: site.supervisord.pid(name) for name in DAEMONS}
    site.supervisord.kill()
    site.supervisord.start()
    for name, pid in old.items():
        wait_for(lambda n=name, p=pid: site.status(n).get("pid", p) != p, f"another {name} answers", timeout_s=DRAIN_S)
        assert not Path(f"/proc/{pid}/exe").exists()  # the new one works, the old one is no more


def test_update_restarts_what_was_edited_and_nothing_else(site):
    before = {name: site.supervisord.pid(name) for name in DAEMONS}
    file = site.supervisord.programs / "bridge.conf"
    shipped = (ETC / "supervisor" / "bridge.conf").read_text()
    backups = 3 if "stdout_logfile_backups=2" in file.read_text() else 2
    file.write_text(shipped.replace("stdout_logfile_backups=2", f"stdout_logfile_backups={backups}"))
    assert site.supervisord.ctl("reread").stdout == "bridge: changed\n"
    assert site.supervisord.ctl("update").stdout == "bridge: stopped\nbridge: updated process group\n"
    site.supervisord.wait_running("bridge", but=before["bridge"])
    site.wait_ready("bridge")
    for name in before.keys() - {"bridge"}:
        assert site.supervisord.pid(name) == before[name]


def test_reload_takes_a_good_file_in_the_same_process_and_refuses_a_bad_one(site):
    pids, before = {}, {}
    for name in PROGRAMS:
        pids[name], before[name] = site.supervisord.pid(name), site.status(name)["started_at"]
    site.configure(log={"level": "loud"})
    for name in PROGRAMS:
        refused = site.run("dmpctl", "reload", "--at", site.binds[name])
        # The file that dmpctl itself reads is not asked for: --at says where.
        assert refused.returncode == exit_codes.CONFIG
        assert 'log.level: expected one of debug, error, info, warning, got "loud"' in refused.stderr
        assert site.status(name)["started_at"] == before[name]
    site.configure(log={"format": "json"})
    for name in PROGRAMS:
        done = site.run("dmpctl", "reload", name)
        assert (done.returncode, done.stderr) == (exit_codes.OK, "")
        assert f"{name} has begun anew after" in done.stdout
    for name in PROGRAMS:
        after = site.wait_ready(name)
        assert after["started_at"] > before[name]
        assert after["pid"] == site.supervisord.pid(name) == pids[name]
        assert json.loads(site.supervisord.log(name).splitlines()[-1])["program"].startswith(name)


def test_hup_reloads_too(site):
    pid, before = site.supervisord.pid("local-registry"), site.status("local-registry")
    good = site.edge.read_text()
    site.edge.write_text(good + "outbox: {rows_max: 5}\n")
    site.supervisord.ctl("signal", "HUP", "local-registry")
    wait_for(lambda: "outbox.rows_max: expected int ≥ 100" in site.supervisord.log("local-registry"), "the sentence")
    assert site.status("local-registry")["started_at"] == before["started_at"]
    site.edge.write_text(good + "outbox: {rows_max: 500}\n")
    site.supervisord.ctl("signal", "HUP", "local-registry")
    wait_for(lambda: site.status("local-registry").get("started_at", "") > before["started_at"], "it begins anew")
    site.wait_ready("local-registry")
    assert site.supervisord.pid("local-registry") == pid
