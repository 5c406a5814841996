"""A certificate is revoked: the handshake is refused and the live connection gone; the end of the list is watched."""

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess

import pytest
import yaml

from dmpd.access import exchange
from dmpd.cli import dmpctl
from dmpd.cloud_registry import migrate
from dmpd.runtime import exit_codes, health
from dmpd.runtime.database import connect
from dmpd.runtime.mqtt import MqttClient, MqttRefusedError, MqttUnreachableError
from tests.support.access import Party, start_dynsec
from tests.support.aio import async_test
from tests.support.mqtt_raw import RawClient, client_tls
from tests.support.platform import BIN, until
from tests.support.services import public_folder

pytestmark = pytest.mark.services
KICKED, NOT_AUTHORIZED = 0x98, 0x87


@pytest.fixture(scope="module")
def broker():
    with public_folder() as folder, start_dynsec(folder) as service:
        service.crl = folder / "mosquitto" / "crl.pem"
        yield service


@pytest.fixture
def config(broker, postgres, tmp_path, monkeypatch):
    """dmpd.yaml of all, named by DMPD_CONFIG."""
    with contextlib.closing(connect(postgres, application="test")) as connection:
        migrate.migrate(connection)
    ours = broker.settings("svc-access")
    sections = {
        "mqtt": {"port": broker.port, "ca_file": ours.ca_file},
        "database": {"conninfo": postgres.conninfo},
        "access": {
            "health_bind": f"unix:{tmp_path / 'access.sock'}",
            "cert_file": ours.cert_file,
            "key_file": ours.key_file,
        },
        "ca": {
            "folder": str(broker.authority.folder),
            "crl_file": str(broker.crl),
            "reload_command": ["kill", "-s", "HUP", str(broker.process.pid)],
        },
    }
    path = tmp_path / "dmpd.yaml"
    path.write_text(yaml.safe_dump(sections))
    monkeypatch.setenv("DMPD_CONFIG", str(path))
    return sections


@pytest.fixture
def daemon(config, tmp_path):
    """``dmpd access``, ready."""
    with (tmp_path / "access.log").open("ab") as log:
        process = subprocess.Popen([str(BIN / "dmpd"), "access"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    bind = config["access"]["health_bind"]
    try:
        until(lambda: status(bind).get("state") == "ready", "dmpd access", 60.0)
        yield bind
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == exit_codes.OK, (tmp_path / "access.log").read_text()[-3000:]
        finally:
            process.kill()
            process.wait()


def status(bind):
    try:
        return json.loads(health.fetch(bind, "/status")[1])
    except OSError:
        return {}


async def connected(broker, name):
    return await Party(name, MqttClient.connect, broker.settings(name)).connect()


async def in_thread(*words):
    return await asyncio.to_thread(dmpctl.main, ["access", "ca", *words])


@async_test
async def _revoke(broker, capsys):
    gone, stays = await connected(broker, "gone-1"), await connected(broker, "stays-1")
    assert await in_thread("revoke", "gone-1") == exit_codes.OK
    assert await gone.ended() == KICKED
    with pytest.raises((MqttRefusedError, MqttUnreachableError)):
        await connected(broker, "gone-1")
    assert not stays.client.closed.done()
    assert await stays.publish("dmp/v1/stays-1/rae/info") == 0
    await stays.client.disconnect()
    assert "gone-1 is not connected with it any more" in capsys.readouterr().out
    user = await connected(broker, "u-gone")
    assert await in_thread("revoke", "u-gone") == exit_codes.OK
    assert await user.ended() == KICKED
    with pytest.raises((MqttRefusedError, MqttUnreachableError)):
        await connected(broker, "u-gone")


def test_a_revoked_rae_and_a_revoked_user_are_out_at_once_and_for_good(broker, daemon, capsys):
    _revoke(broker, capsys)


@async_test
async def _issue(broker, tmp_path):
    assert await in_thread("issue", "u-fresh", "--out", str(tmp_path / "out")) == exit_codes.OK
    for suffix in ("crt", "key"):
        shutil.copy(tmp_path / "out" / f"u-fresh.{suffix}", broker.authority.folder)
    async with asyncio.timeout(30):
        while True:  # the daemon's next look at the database, and the change in the broker
            user = await connected(broker, "u-fresh")
            code = await user.publish("dmp/v1/u-fresh/x/info")
            await user.client.disconnect()
            if code == NOT_AUTHORIZED:
                return
            await asyncio.sleep(0.05)


def test_a_user_whose_certificate_is_made_is_known_before_the_first_grant(broker, daemon, tmp_path):
    """Or the broker's patterns would make him a RAE of his own name."""
    _issue(broker, tmp_path)


def test_one_who_waited_at_the_door_is_out_a_little_later(broker, daemon, monkeypatch):
    """The certificate was shown before it was revoked, the CONNECT comes afterwards: Mosquitto looks no second time."""
    monkeypatch.setattr("dmpd.cli.ca_access.SILENT_S", 3.0)
    sly = RawClient(broker.port, client_tls(broker, "sly-1"), "sly-1", connects=False)
    try:
        assert dmpctl.main(["access", "ca", "revoke", "sly-1"]) == exit_codes.OK
        sly.connect("sly-1")
        kind, body = sly.read()
        assert (kind, body[0]) == (0xE0, KICKED)
    finally:
        sly.close()


def test_without_a_daemon_a_connection_stays_and_that_is_said(broker, config, capsys):
    assert broker.authority.client("stays-2")
    assert dmpctl.main(["access", "ca", "revoke", "stays-2", "--wait", "0.2"]) == exit_codes.FAILED
    said = capsys.readouterr()
    assert "the broker has been told" in said.out
    assert "stays-2 stays connected if it is: dmpd access has not done it within 0.2 s" in said.err


def test_without_a_database_the_list_is_written_all_the_same(broker, config, tmp_path, capsys):
    config["database"]["conninfo"] = "host=127.0.0.1 port=1 dbname=dmpd user=dmpd"
    (tmp_path / "dmpd.yaml").write_text(yaml.safe_dump(config))
    assert broker.authority.client("stays-3")
    assert dmpctl.main(["access", "ca", "revoke", "stays-3"]) == exit_codes.FAILED
    assert "stays-3 stays connected if it is" in capsys.readouterr().err
    assert [one.revoked_at is not None for one in broker.authority.authority.issued("stays-3")] == [True]
    assert dmpctl.main(["access", "ca", "issue", "u-later", "--out", str(tmp_path / "out")]) == exit_codes.OK
    assert "u-later is unknown to the broker until his first grant" in capsys.readouterr().err


def test_the_end_of_the_list_is_in_status_and_metrics(broker, daemon):
    said = status(daemon)
    assert said["crl_ends_at"] == broker.authority.authority.list_ends_at.isoformat()
    metrics = health.fetch(daemon, "/metrics")[1].decode()
    (line,) = [line for line in metrics.splitlines() if line.startswith("dmpd_access_crl_expires_seconds ")]
    assert 3640 * 86_400 < float(line.split()[1]) < 3651 * 86_400


def test_a_kick_waits_until_the_daemon_has_done_it(postgres):
    with contextlib.closing(connect(postgres, application="test")) as connection:
        migrate.migrate(connection)
        connection.autocommit = True
        assert not exchange.kick_waits(connection, "R1")
        exchange.ask_kick(connection, "R1", by="op-test")
        assert exchange.kick_waits(connection, "R1")
        exchange.kicked(connection, [one.id for one in exchange.snapshot(connection).kicks])
        assert not exchange.kick_waits(connection, "R1")
        exchange.ask_kick(connection, "R1", by="op-test", delay_s=3600)
        assert not exchange.kick_waits(connection, "R1")
        assert exchange.snapshot(connection).kicks == []
