"""The canary over a real lab: it passes what is well, and names each thing that is not."""

import asyncio
import datetime as dt
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dmpd.canary.plan import rae_of
from dmpd.canary.run import BusyError, DisabledError
from dmpd.model.certificates import CertificateKind
from dmpd.runtime.mqtt import MqttClient
from tests.support.aio import async_test
from tests.support.broken_bridge import BrokenBridge
from tests.support.canary_lab import CLIENTS, issue, names, run_small, small, told, without
from tests.support.platform import BIN, LabUnderTest, running_lab, until

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(300)]
LAST = "last"


@pytest.fixture(scope="module")
def lab():
    with running_lab("--no-lan", "--raes", "1", "--devices", "3", "--rate", "2") as found:
        issue(found)
        yield found


def ready(lab: LabUnderTest) -> None:
    until(lambda: all(part.state == "RUNNING" for part in lab.supervisor.states()), "all parts run", 60)
    until(lambda: all(one.get("state") == "ready" for one in lab.health().values()), "all daemons are ready", 60)


@pytest.fixture
def whole(lab):
    """The lab with all its parts ready, and so again behind the test."""
    ready(lab)
    yield lab
    ready(lab)


def broker_pid(lab: LabUnderTest) -> int:
    return next(part.pid for part in lab.supervisor.states() if part.name == "mosquitto")


@async_test
async def test_what_is_well_is_passed_and_two_runs_at_once_are_one(whole):
    both = await asyncio.gather(run_small(whole), run_small(whole), return_exceptions=True)
    (refused,) = [one for one in both if isinstance(one, BaseException)]
    assert isinstance(refused, BusyError)
    assert "is under way" in str(refused)
    (saved,) = [one for one in both if not isinstance(one, BaseException)]
    facts = saved.report.facts
    assert saved.report.verdict == "pass", told(saved)
    assert (facts.connected, facts.sent, facts.acked, facts.arrived) == (CLIENTS, *[CLIENTS * 11] * 3)
    assert facts.rows_compared == facts.cleaned == CLIENTS
    assert facts.requests_asked == 5
    assert facts.probes == 2 * 4
    assert facts.times["row"].n > 0
    assert sum(one.n for one in facts.raes.values()) > 0, "nothing of the real RAEs was seen"
    assert facts.broker["after"]["subscriptions"] < facts.broker["before"]["subscriptions"] + CLIENTS
    history(whole, saved)


def history(lab: LabUnderTest, saved) -> None:
    """What dmpctl says of the run; its rows are hidden, and closed."""
    status = lab.ctl("canary", "status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert saved.report.run in lab.ctl("canary", "last").stdout
    assert lab.ctl("canary", "show", saved.report.run[:8]).returncode == 0
    assert '"verdict": "pass"' in lab.ctl("canary", "history", "--json").stdout.replace('":"', '": "')
    assert lab.ctl("canary", "compare", LAST, LAST).returncode == 0
    assert lab.ctl("canary", "show", "last~99").returncode == 1
    assert "canary-" not in lab.ctl("raes").stdout
    assert "canary-" not in lab.ctl("devices").stdout
    assert "canary-0001" in lab.ctl("raes", "--canary").stdout
    assert lab.query("SELECT count(*) FROM device_session WHERE rae LIKE 'canary-%' AND closed_at IS NULL") == [(0,)]


@async_test
async def test_a_bridge_that_drops_alters_swaps_and_delays_is_found_out(whole):
    authority = issue(whole)
    mqtt = authority.client("svc-bridge").mqtt_settings(port=whole.folder.read_info().mosquitto_port)
    with without(whole, "bridge"):
        bridge = BrokenBridge(
            mqtt,
            whole.kafka,
            "dmp.info",
            drops=rae_of(3),
            alters=rae_of(5),
            swaps=rae_of(7),
            delays=rae_of(9),
            delay_s=9.0,
        )
        async with bridge.running():
            saved = await run_small(whole, settings=small(whole, requests=0, drain_timeout_s=14.0))
    assert saved.report.verdict == "fail"
    facts = saved.report.facts
    assert names(saved) >= {"lost", "wrong", "reordered", "late"}, told(saved)
    assert list(facts.lost.examples) == ["canary-0003 seq 4 rev 4"]
    assert any(example.startswith("canary-0005 seq 4 rev 4: in Kafka with another") for example in facts.wrong.examples)
    assert [example[:24] for example in facts.reordered.examples] == ["canary-0007 seq 4 behind"]
    assert {example.split()[0] for example in facts.late.examples} == {"canary-0009"}


@async_test
async def test_an_acl_hole_a_bad_certificate_a_planted_session_and_an_edited_row_are_named(whole):
    acl, pid = whole.folder.mosquitto / "acl", broker_pid(whole)
    sound = acl.read_text()
    authority = issue(whole)
    number = 11
    files = authority.client(rae_of(number))
    good = files.cert.read_bytes(), files.key.read_bytes()
    try:
        with acl.open("a") as rules:
            rules.write("\npattern readwrite dmp/v1/+/+/info\n")
        os.kill(pid, signal.SIGHUP)
        before = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
        ended = authority.authority.issue(rae_of(number), CertificateKind.CANARY, now=before, days=1)
        files.cert.write_bytes(ended.certificate)
        files.key.write_bytes(ended.key)
        await plant(authority, whole, rae_of(4))
        edit = "UPDATE device_attribute SET value = '\"edited\"' WHERE rae = 'canary-0002' AND name = 'last'"
        saved = await run_small(whole, at={"control group after": lambda: execute(whole, edit)})
    finally:
        acl.write_text(sound)
        os.kill(pid, signal.SIGHUP)
        files.cert.write_bytes(good[0])
        files.key.write_bytes(good[1])
    assert saved.report.verdict == "fail"
    assert names(saved) >= {"acl_hole", "connect_failed", "leftovers", "wrong"}, told(saved)
    facts = saved.report.facts
    assert facts.connected == CLIENTS - 1
    assert "canary-0011" in facts.connect_errors.examples[0]
    assert "expired" in facts.connect_errors.examples[0]
    assert any("was answered 0x" in example for example in facts.acl_holes.examples)
    assert any("heard dmp/v1/" in example for example in facts.acl_holes.examples)
    assert "canary-0004: an MQTT session from before the run" in facts.leftovers.examples
    assert any("canary-0002: attribute last 'edited'" in example for example in facts.wrong.examples), told(saved)


@async_test
async def test_a_broker_that_stands_still_is_slow(whole):
    pid = broker_pid(whole)

    def freeze():
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(5.5)
        finally:
            os.kill(pid, signal.SIGCONT)

    saved = await run_small(whole, at={"flash": freeze})
    assert "control_slow" in names(saved), told(saved)
    assert saved.report.facts.lost.count == 0


@async_test
async def test_a_broker_that_is_killed_breaks_connections_and_loses_nothing_that_was_promised(whole):
    saved = await run_small(whole, at={"flash": lambda: whole.lab("kill", "mosquitto")})
    assert names(saved) >= {"disconnects", "control_disconnects"}, told(saved)
    assert saved.report.facts.lost.count == 0, told(saved)


@async_test
async def test_kafka_away_for_twenty_seconds_is_slow(whole):
    def outage():
        with without(whole, "kafka"):
            time.sleep(20)

    settings = small(whole, drain_timeout_s=60.0)
    saved = await run_small(whole, at={"flash": outage}, settings=settings)
    assert names(saved) & {"late", "end_to_end_slow"}, told(saved)
    assert "control_slow" in names(saved), told(saved)
    assert saved.report.facts.lost.count == saved.report.facts.wrong.count == 0, told(saved)


@async_test
async def test_a_dead_worker_of_the_cloud_registry_is_counted(whole):
    saved = await run_small(whole, at={"flash": lambda: whole.lab("kill", "worker")})
    assert "worker_deaths" in names(saved, "degraded"), told(saved)
    facts = saved.report.facts
    assert (facts.lost.count, facts.wrong.count, facts.reordered.count) == (0, 0, 0), told(saved)


@async_test
async def test_a_database_that_is_away_makes_rows_late_and_one_that_stays_away_proves_nothing(whole):
    def outage():
        with without(whole, "postgresql"):
            time.sleep(9)

    saved = await run_small(whole, at={"flash": outage}, settings=small(whole, drain_timeout_s=60.0))
    assert names(saved) & {"late", "end_to_end_slow", "control_slow"}, told(saved)
    assert saved.report.facts.wrong.count == 0, told(saved)
    ready(whole)

    def longer():
        with without(whole, "postgresql"):
            time.sleep(4)

    saved = await run_small(whole, at={"control group after": longer})
    assert saved.report.verdict in ("unknown", "fail"), told(saved)
    assert "database_unreachable" in names(saved, "unknown"), told(saved)
    assert saved.problem is None


@async_test
async def test_a_runner_that_was_killed_is_told_of_by_the_next_run_which_cleans_up(whole):
    overlay = whole.folder.config.with_suffix(".d")
    overlay.mkdir()
    (overlay / "canary.yaml").write_text("canary: {before_s: 1, clients: 30, control_clients: 4, flash_s: 60}\n")
    command = [str(BIN / "dmpd"), "canary", "--once", "--config", str(whole.folder.config)]
    crowd = kill_in_flash(command)
    shutil.rmtree(overlay)
    assert len(crowd) >= 2
    until(lambda: not any(map(alive, crowd)), "the crowd's processes ended with their runner")
    with pytest.raises(BusyError):
        await run_small(whole)
    execute(whole, "UPDATE canary_state SET lease_until = now()")  # in the place of waiting for its end
    saved = await run_small(whole)
    assert "former_run_died" in names(saved, "degraded"), told(saved)
    (former,) = saved.report.facts.former
    assert saved.report.facts.swept == 34
    assert not names(saved), told(saved)
    (died,) = whole.query("SELECT verdict, reasons FROM canary_run WHERE run = %s::uuid", former.run)
    assert died[0] == "unknown"
    assert died[1][0]["name"] == "runner_died"


@async_test
async def test_without_certificates_enough_nothing_is_judged_and_disabled_nothing_is_begun(whole):
    saved = await run_small(whole, settings=small(whole, clients=CLIENTS + 1))
    assert saved.report.verdict == "unknown"
    assert [reason.name for reason in saved.report.reasons] == ["certificates"]
    assert "1 of 35 certificates are missing, the first is canary-0035.crt" in saved.report.reasons[0].sentence
    assert whole.ctl("canary", "status").returncode == 69
    assert whole.ctl("canary", "disable", "a deployment").returncode == 0
    try:
        with pytest.raises(DisabledError, match="a deployment"):
            await run_small(whole)
        assert "a deployment" in whole.ctl("canary", "status").stdout
    finally:
        assert whole.ctl("canary", "enable").returncode == 0


def kill_in_flash(command: list[str]) -> list[int]:
    """Run the command until the flash, then kill -9 it; pids of its children, which it could not end."""
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in runner.stdout:
            if "flash: " in line:
                break
        return children(runner.pid)
    finally:
        runner.kill()
        runner.wait()
        runner.stdout.close()


def execute(lab: LabUnderTest, statement: str) -> None:
    import psycopg

    with psycopg.connect(lab.database.conninfo, autocommit=True) as connection:
        connection.execute(statement)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def plant(authority, lab: LabUnderTest, name: str) -> None:
    """Leave an MQTT session of a canary behind."""
    settings = authority.client(name).mqtt_settings(port=lab.folder.read_info().mosquitto_port)
    client = await MqttClient.connect(
        settings,
        client_id=name,
        clean_start=True,
        session_expiry_s=600,
        will=None,
        on_message=lambda _: None,
        on_puback=lambda *_: None,
        receive_maximum=10,
    )
    await client.subscribe([f"dmp/v1/{name}/rae/ack"])
    await client.disconnect()
