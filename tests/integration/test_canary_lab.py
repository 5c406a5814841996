"""The canary over a real lab: it passes what is well, and names each thing that is not. Outages have their own file."""

import asyncio
import datetime as dt
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from dmpd.canary.plan import rae_of
from dmpd.canary.run import BusyError, DisabledError
from dmpd.model.certificates import CertificateKind
from dmpd.model.codec import encode
from dmpd.model.messages import Status
from dmpd.model.topics import info_topic
from dmpd.runtime.mqtt import MqttClient
from tests.support.aio import async_test
from tests.support.broken_bridge import BrokenBridge
from tests.support.canary_lab import (
    BROKEN,
    CLIENTS,
    CONTROL,
    broker_pid,
    canary_lab,
    execute,
    forget_canaries,
    issue,
    names,
    ready,
    run_small,
    run_unbroken,
    small,
    told,
    whole_again,
    without,
)
from tests.support.platform import BIN, LabUnderTest, until
from tests.support.stepping_clock import SteppingClock

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(300)]
LAST = "last"
EXPIRED, PLANTED, EDITED = 11, 4, 2
EXPIRED_CONTROL = CLIENTS + 2
DROPS, ALTERS, SWAPS, DELAYS = 3, 5, 12, 9
FOREIGN = """
    INSERT INTO rae VALUES ('canary-0999', 1, 1, 'ready', '{}', NULL, 0, 0, now()) ON CONFLICT DO NOTHING;
    INSERT INTO device_session (rae, session, epoch, rev, seq, stale, state, changed_at, kafka_partition, kafka_offset,
        applied_at) VALUES ('canary-0999', gen_random_uuid(), 1, 1, 1, false, 'online', now(), 0, 0, now())
"""
"""A device session of a canary for which there is no certificate."""


@pytest.fixture(scope="module")
def lab():
    with canary_lab() as found:
        yield found


@pytest.fixture
def whole(lab):
    with whole_again(lab) as found:
        yield found


@async_test
async def test_what_is_well_is_passed_and_two_runs_at_once_are_one(whole):
    groups = consumer_groups(whole)
    both = await asyncio.gather(run_small(whole), run_small(whole), return_exceptions=True)
    (refused,) = [one for one in both if isinstance(one, BaseException)]
    assert isinstance(refused, BusyError)
    assert "is under way" in str(refused)
    (report,) = [one for one in both if not isinstance(one, BaseException)]
    report = await run_unbroken(whole, report)
    facts = report.facts
    assert report.verdict == "pass", told(report)
    assert (facts.connected, facts.sent, facts.acked, facts.arrived) == (CLIENTS, *[CLIENTS * 11] * 3)
    assert facts.rows_compared == facts.cleaned == CLIENTS
    assert facts.requests_asked == 5
    assert facts.probes == facts.probes_expected == 4 * 4
    assert facts.times["row"].n > 0
    assert sum(one.n for one in facts.raes.values()) > 0, "nothing of the real RAEs was seen"
    assert facts.broker["after"]["subscriptions"] < facts.broker["before"]["subscriptions"] + CLIENTS
    history(whole, report)
    left = consumer_groups(whole) - groups - {"dmpd-bridge"}  # whose first word may come only now
    assert not left, "a consumer group was left"
    assert whole.query("SELECT count(*) FROM access_grant WHERE rae LIKE 'canary-%'") == [(0,)]


def history(lab: LabUnderTest, report) -> None:
    """What dmpctl says of the run; its rows are hidden, and closed."""
    status = lab.ctl("canary", "status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert report.run in lab.ctl("canary", "last").stdout
    assert lab.ctl("canary", "show", report.run[:8]).returncode == 0
    assert '"verdict": "pass"' in lab.ctl("canary", "history", "--json").stdout.replace('":"', '": "')
    assert lab.ctl("canary", "compare", LAST, LAST).returncode == 0
    assert lab.ctl("canary", "show", "last~99").returncode == 1
    assert "canary-" not in lab.ctl("raes").stdout
    assert "canary-" not in lab.ctl("devices").stdout
    assert "canary-0001" in lab.ctl("raes", "--canary").stdout
    assert lab.query("SELECT count(*) FROM device_session WHERE rae LIKE 'canary-%' AND closed_at IS NULL") == [(0,)]


def consumer_groups(lab: LabUnderTest) -> set[str]:
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": lab.kafka.bootstrap_servers})
    return {group.group_id for group in admin.list_consumer_groups().result(20).valid}


@pytest.fixture(scope="module")
def harmed(lab):
    """One run with everything wrong that leaves the rest of it to itself; each test finds its own fault by name."""
    ready(lab)
    forget_canaries(lab)
    yield asyncio.run(harmed_run(lab))
    ready(lab)


async def harmed_run(lab: LabUnderTest):
    acl, pid = lab.folder.mosquitto / "acl", broker_pid(lab)
    sound = acl.read_text()
    authority = issue(lab)
    expired = [rae_of(EXPIRED), rae_of(EXPIRED_CONTROL)]
    good = {name: [path.read_bytes() for path in pair(authority, name)] for name in expired}
    bridge = BrokenBridge(
        authority.client("svc-bridge").mqtt_settings(port=lab.folder.read_info().mosquitto_port),
        lab.kafka,
        "dmp.info",
        drops=rae_of(DROPS),
        alters=rae_of(ALTERS),
        swaps=rae_of(SWAPS),
        delays=rae_of(DELAYS),
        delay_s=9.0,
    )
    edit = f"UPDATE device_attribute SET value = '\"edited\"' WHERE rae = '{rae_of(EDITED)}' AND name = 'last'"
    try:
        with acl.open("a") as rules:
            rules.write("\npattern readwrite dmp/v1/+/+/info\n")
        os.kill(pid, signal.SIGHUP)
        begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
        for name in expired:
            ended = authority.authority.issue(name, CertificateKind.CANARY, now=begin, days=1)
            put(pair(authority, name), [ended.certificate, ended.key])
        await plant(authority, lab, rae_of(PLANTED), said=said_by(rae_of(PLANTED)))
        with without(lab, "bridge"):
            async with bridge.running():
                return await run_small(
                    lab,
                    settings=small(lab, requests=0, drain_timeout_s=13.0),
                    before={"proof": lambda: execute(lab, edit)},
                )
    finally:
        await plant(authority, lab, rae_of(PLANTED), said=b"", expiry_s=0)
        acl.write_text(sound)
        os.kill(pid, signal.SIGHUP)
        for name in expired:
            put(pair(authority, name), good[name])


def pair(authority, name) -> list[Path]:
    files = authority.client(name)
    return [files.cert, files.key]


def put(paths, contents) -> None:
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)


def test_a_message_that_the_bridge_drops_is_lost(harmed):
    assert harmed.verdict == "fail"
    assert "lost" in names(harmed), told(harmed)
    assert list(harmed.facts.lost.examples) == [f"{rae_of(DROPS)} seq 4 rev 4"]


def test_a_message_that_the_bridge_alters_is_wrong(harmed):
    assert "wrong" in names(harmed), told(harmed)
    examples = harmed.facts.wrong.examples
    assert any(one.startswith(f"{rae_of(ALTERS)} seq 4 rev 4: in Kafka with another") for one in examples), examples


def test_a_row_that_is_not_as_it_was_sent_is_wrong(harmed):
    examples = harmed.facts.wrong.examples
    assert any(f"{rae_of(EDITED)}: attribute last 'edited'" in one for one in examples), examples


def test_two_messages_that_change_places_are_reordered(harmed):
    assert "reordered" in names(harmed), told(harmed)
    examples = [one.partition(" (")[0] for one in harmed.facts.reordered.examples]
    assert examples == [f"{rae_of(SWAPS)} seq 4 behind 5"]


def test_messages_that_the_bridge_keeps_are_late(harmed):
    assert "late" in names(harmed), told(harmed)
    assert {one.split()[0] for one in harmed.facts.late.examples} == {rae_of(DELAYS)}


def test_a_wide_line_in_the_brokers_rules_is_a_hole_for_who_writes_and_for_who_reads(harmed):
    assert "acl_hole" in names(harmed), told(harmed)
    examples = harmed.facts.acl_holes.examples
    assert any("a publish to another's topic was answered 0x" in one for one in examples), examples
    assert any("heard dmp/v1/" in one for one in examples), examples


@async_test
async def test_a_line_that_lets_everybody_write_requests_and_answers_of_others_is_a_hole(whole):
    acl, pid = whole.folder.mosquitto / "acl", broker_pid(whole)
    sound = acl.read_text()
    try:
        acl.write_text(f"{sound}\npattern write dmp/v1/+/+/cmd/+\npattern write dmp/v1/+/+/rsp/+\n")
        os.kill(pid, signal.SIGHUP)
        report = await run_small(whole, settings=small(whole, requests=0))
    finally:
        acl.write_text(sound)
        os.kill(pid, signal.SIGHUP)
    assert "acl_hole" in names(report), told(report)


def test_a_certificate_that_has_expired_is_named_with_its_client(harmed):
    assert "connect_failed" in names(harmed), told(harmed)
    facts = harmed.facts
    assert facts.connected == CLIENTS - 1
    (example,) = facts.connect_errors.examples
    assert rae_of(EXPIRED) in example
    assert "its certificate expired 20" in example


def test_a_certificate_of_the_control_group_that_has_expired_is_named_too(harmed):
    assert "control_connect_failed" in names(harmed), told(harmed)
    (example,) = harmed.facts.control_connect_errors.examples
    assert rae_of(EXPIRED_CONTROL) in example


def test_an_mqtt_session_that_somebody_left_is_a_leftover(harmed):
    assert "leftovers" in names(harmed), told(harmed)
    assert f"{rae_of(PLANTED)}: an MQTT session from before the run" in harmed.facts.leftovers.examples


def test_a_retained_message_is_a_leftover(harmed):
    topic = info_topic(rae_of(PLANTED), "rae")
    assert f"{rae_of(PLANTED)}: a retained message on {topic}" in harmed.facts.leftovers.examples


@async_test
async def test_a_runner_that_was_killed_is_told_of_by_the_next_run_which_cleans_up_while_the_clock_is_set(whole):
    """The next run has the database's clock stepped under it, forward and further back: no verdict comes of that."""
    crowd = kill_in_flash(whole)
    assert len(crowd) >= 2
    until(lambda: not any(map(alive, crowd)), "the crowd's processes ended with their runner")
    with pytest.raises(BusyError):
        await run_small(whole)
    execute(whole, "UPDATE canary_state SET lease_until = now()")  # in the place of waiting for its end
    execute(whole, FOREIGN)
    clock = SteppingClock(whole.database.conninfo)
    try:
        clock.everybody()
        ready(whole)
        report = await run_small(whole, before={"ramp": lambda: clock.step(3600), "drain": lambda: clock.step(-7200)})
    finally:
        clock.remove()
        clock.everybody()
        execute(
            whole, "DELETE FROM device_session WHERE rae = 'canary-0999'; DELETE FROM rae WHERE rae = 'canary-0999'"
        )
    left = {"former_run_died", "former_left_sessions", "former_sessions_stay"}
    assert names(report, "degraded") >= left, told(report)
    if names(report) & BROKEN:
        assert names(report) <= BROKEN | {"leftovers"}, told(report)
        assert names(report, "unknown") <= {"probes_unknown", "control_unknown"}, told(report)
    else:
        assert not names(report) | names(report, "unknown"), told(report)
    facts = report.facts
    assert (facts.swept, facts.unswept) == (CLIENTS + CONTROL, 1)
    assert 0 < facts.times["row"].max < 60, "a step is in a time"
    assert facts.times["row"].n >= CLIENTS * 7
    if not names(report) & BROKEN:
        still = "SELECT count(*) FROM device_session WHERE rae LIKE 'canary-%' AND closed_at IS NULL"
        assert whole.query(still) == [(0,)], "what the killed run left is not closed"
    (former,) = facts.former
    (died,) = whole.query("SELECT verdict, reasons FROM canary_run WHERE run = %s::uuid", former.run)
    assert died[0] == "unknown"
    assert died[1][0]["name"] == "runner_died"


@async_test
async def test_without_certificates_enough_nothing_is_judged_and_disabled_nothing_is_begun(whole):
    report = await run_small(whole, settings=small(whole, clients=CLIENTS + 1))
    assert report.verdict == "unknown"
    assert [reason.name for reason in report.reasons] == ["certificates"]
    assert "1 of 35 certificates are missing, the first is canary-0035.crt" in report.reasons[0].sentence
    assert whole.ctl("canary", "status").returncode == 69
    assert whole.ctl("canary", "disable", "a deployment").returncode == 0
    try:
        with pytest.raises(DisabledError, match="a deployment"):
            await run_small(whole)
        assert "a deployment" in whole.ctl("canary", "status").stdout
    finally:
        assert whole.ctl("canary", "enable").returncode == 0


def kill_in_flash(lab: LabUnderTest) -> list[int]:
    """Run the command until the flash, then kill -9 it; pids of its children, which it could not end."""
    overlay = lab.folder.config.with_suffix(".d")
    overlay.mkdir()
    (overlay / "canary.yaml").write_text(
        f"canary: {{before_s: 1, clients: {CLIENTS}, control_clients: {CONTROL}, ramp_s: 1, flash_s: 60}}\n"
    )
    command = [str(BIN / "dmpd"), "canary", "--once", "--config", str(lab.folder.config)]
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
        shutil.rmtree(overlay)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def said_by(name: str) -> bytes:
    now = dt.datetime.now(dt.UTC)
    return encode(Status(v=1, rae=name, session="rae", at=now, epoch=1, state="ready", run=1, seq_high=0))


async def plant(authority, lab: LabUnderTest, name: str, *, said: bytes, expiry_s: int = 600) -> None:
    """Leave an MQTT session of a canary behind, and a retained message; empty it removes the one that is there."""
    settings = authority.client(name).mqtt_settings(port=lab.folder.read_info().mosquitto_port)
    client = await MqttClient.connect(
        settings,
        client_id=name,
        clean_start=True,
        session_expiry_s=expiry_s,
        will=None,
        on_message=lambda _: None,
        on_puback=lambda *_: None,
        receive_maximum=10,
    )
    await client.subscribe([f"dmp/v1/{name}/rae/ack"])
    client.publish(info_topic(name, "rae"), said, qos=1, retain=True)
    await client.disconnect()
