"""dmpctl's questions to the database: what is shown, as what, and with which exit code."""

import json
from datetime import UTC, datetime

import pytest
import yaml
from msgspec import Raw

from dmpd.cli import dmpctl
from dmpd.cloud_registry import query
from dmpd.local_registry.store import Commit, DeviceWrite, Store
from dmpd.model.messages import Status
from dmpd.model.record import DeviceRecord, Interface
from dmpd.runtime import exit_codes
from tests.support.messages import AT, EPOCH, RAE, change, checkpoint, closed, session_id
from tests.support.rows import OutputTwin, make_handler, migrated, record_of

pytestmark = pytest.mark.services

NOW = datetime(2026, 11, 25, 4, 10, 0, tzinfo=UTC)
TV = DeviceRecord(
    name="tv",
    esn="E1",
    state="online",
    interfaces=(Interface(mac="02:00:00:00:00:01", ip4="10.0.0.7"),),
    attributes={"test_state": Raw(b'"in_test"')},
)


@pytest.fixture
def connection(postgres):
    with migrated(postgres) as connection:
        yield connection


@pytest.fixture
def config(tmp_path, postgres):
    path = tmp_path / "dmpd.yaml"
    path.write_text(yaml.safe_dump({"database": {"conninfo": postgres.conninfo}}))
    return path


@pytest.fixture
def fill(connection, postgres):
    handler = make_handler(postgres)

    def hand(*messages, headers=()):
        handler.handle([record_of(message, i, headers) for i, message in enumerate(messages)], OutputTwin())

    yield hand
    handler.close()


def status(rae, state="ready"):
    return Status(v=1, rae=rae, session="rae", at=AT, epoch=EPOCH, state=state, run=1, seq_high=0, outbox_rows=5)


def run(config, *words):
    return dmpctl.main([words[0], "--config", str(config), *words[1:]])


def shown_json(capsys):
    return json.loads(capsys.readouterr().out)


def test_devices(fill, config, capsys):
    assert run(config, "devices") == exit_codes.DIFFERENT
    canary = checkpoint(1, session=session_id(9))
    fill(
        checkpoint(1, TV, session=session_id(1)),
        change(1, session=session_id(2)),
        closed(1, session=session_id(3)),
        type(canary)(**{name: getattr(canary, name) for name in canary.__struct_fields__} | {"rae": "canary-0001"}),
    )
    capsys.readouterr()
    assert run(config, "devices", "--json") == exit_codes.OK
    found = shown_json(capsys)
    assert [(one["session"], one["state"], one["stale"]) for one in found] == [
        (session_id(1), "online", False),
        (session_id(2), "unknown", True),
    ]
    assert (found[0]["mac"], found[0]["ip4"], found[0]["reachable"]) == ("02:00:00:00:00:01", "10.0.0.7", False)
    for words, count in (
        (["--state", "online"], 1),
        (["--rae", RAE], 2),
        (["--rae", "nobody"], 0),
        (["--canary"], 3),
        (["--rae", "canary-0001"], 1),
        (["--limit", "1"], 1),
    ):
        assert run(config, "devices", "--json", *words) == (exit_codes.OK if count else exit_codes.DIFFERENT)
        assert len(shown_json(capsys)) == count, words
    assert run(config, "devices") == exit_codes.OK
    out = capsys.readouterr().out
    assert "02:00:00:00:00:01" in out
    assert "RAE unreachable, stale" in out
    assert "2 devices" in out
    assert "\x1b" not in out


def test_device(fill, config, capsys):
    fill(checkpoint(1, TV, session=session_id(1)), checkpoint(1, session=session_id(0x10)))
    assert run(config, "device", session_id(1)) == exit_codes.OK
    out = capsys.readouterr().out
    for words in ("in_test", "10.0.0.7", "rev 1", "exact", "state"):
        assert words in out
    assert run(config, "device", "00000001", "--json") == exit_codes.OK
    found = shown_json(capsys)
    assert found["row"]["record"]["attributes"] == {"test_state": "in_test"}
    assert [event["code"] for event in found["events"]] == ["state"]
    assert run(config, "device", "000000") == 2
    assert "2 sessions begin" in capsys.readouterr().err
    assert run(config, "device", "ffff") == exit_codes.DIFFERENT
    assert "no device session" in capsys.readouterr().err


def test_raes(fill, connection, config, capsys):
    assert run(config, "raes") == exit_codes.DIFFERENT
    fill(
        status("RAE-1"),
        status("RAE-2", "lost"),
        checkpoint(1, TV),
        headers=[("mqtt-received-at", b"2026-11-25T04:08:00.000Z")],
    )
    found = query.raes(connection, now=NOW)
    assert [(one.rae, one.reachable, one.state, one.devices, one.online) for one in found] == [
        ("RAE-1", True, "ready", 0, 0),
        ("RAE-2", False, "lost", 0, 0),
        (RAE, False, None, 1, 1),
    ]
    late = NOW.replace(minute=11, second=1)
    assert not any(one.reachable for one in query.raes(connection, now=late))
    capsys.readouterr()
    assert run(config, "raes") == exit_codes.OK
    assert "3 RAEs" in capsys.readouterr().out


def test_a_database_that_is_away_or_bare_is_one_sentence(config, postgres, capsys):
    assert run(config, "raes") == exit_codes.CONFIG
    assert "run 'dmpd migrate' first" in capsys.readouterr().err
    config.write_text(yaml.safe_dump({"database": {"conninfo": "host=/nonexistent dbname=x"}}))
    assert run(config, "raes") == exit_codes.UNAVAILABLE
    assert capsys.readouterr().err.count("\n") <= 3


def store_of(folder, rae, devices):
    store = Store(folder / rae)
    writes = [
        DeviceWrite(session_id(number), EPOCH, rev, 1, encoded(record), None, None)
        for number, (rev, record) in devices.items()
    ]
    store.commit(Commit(devices=writes))
    store.close()


def encoded(record):
    import msgspec

    return msgspec.json.encode(record)


def test_verify(fill, connection, config, tmp_path, capsys):
    stores = tmp_path / "stores"
    stores.mkdir()
    assert run(config, "verify", "--stores", str(stores)) == exit_codes.USAGE
    store_of(stores, RAE, {1: (1, TV), 2: (3, DeviceRecord(state="offline"))})
    fill(checkpoint(1, TV, session=session_id(1)), checkpoint(3, DeviceRecord(state="offline"), session=session_id(2)))
    capsys.readouterr()
    assert run(config, "verify", "--stores", str(stores), "--wait", "0") == exit_codes.OK
    assert "2 device sessions of 1 RAEs, 4 changes" in capsys.readouterr().out
    assert run(config, "verify", "--store", f"{RAE}={stores / RAE}", "--wait", "0") == exit_codes.OK

    fill(checkpoint(1, session=session_id(5)))  # a phantom
    connection.execute("UPDATE device_attribute SET value = '1'")
    connection.execute("DELETE FROM device_session WHERE session = %s::text::uuid", (session_id(2),))
    capsys.readouterr()
    assert run(config, "verify", "--stores", str(stores), "--wait", "0", "--json") == exit_codes.DIFFERENT
    found = shown_json(capsys)
    assert (found["equal"], found["missing"], found["wrong"], found["phantoms"]) == (False, 1, 1, 1)
    assert {(one["session"], one["kind"], one["field"]) for one in found["differences"]} == {
        (session_id(1), "wrong", "attributes.test_state"),
        (session_id(2), "missing", "session"),
        (session_id(5), "phantom", "session"),
    }
    assert run(config, "verify", "--stores", str(stores), "--wait", "0") == exit_codes.DIFFERENT
    assert "attributes.test_state" in capsys.readouterr().out
    (stores / RAE / "registry.db").write_bytes(b"no database at all" * 100)
    assert run(config, "verify", "--stores", str(stores), "--wait", "0") == exit_codes.UNAVAILABLE
