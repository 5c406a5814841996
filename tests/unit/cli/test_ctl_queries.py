"""dmpctl's questions to the database: what is shown, as what, and with which exit code."""

import argparse
import io
import json
from datetime import UTC, datetime

import msgspec
import pytest
import yaml
from msgspec import Raw
from rich.console import Console

from dmpd.cli import ctl_devices, dmpctl, showing
from dmpd.cloud_registry import devices, history, query
from dmpd.cloud_registry.device_filter import DeviceFilter
from dmpd.local_registry.store import Commit, DeviceWrite, Store
from dmpd.model.messages import Event, Roster, Status
from dmpd.model.record import DeviceRecord, Interface, RecordPatch
from dmpd.runtime import exit_codes
from tests.support import many_rows
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, closed, session_id
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


@pytest.fixture
def lan(fill):
    """Five devices of two RAEs, each different in what filters ask for."""
    fill(
        checkpoint(1, TV, session=session_id(1)),
        checkpoint(7, DeviceRecord(name="box", state="asleep", attributes={"n": Raw(b"1.0")}), session=session_id(2)),
        change(3, session=session_id(3)),
        checkpoint(
            2, DeviceRecord(interfaces=(Interface(mac="02:00:00:00:00:04", ip6=("fe80::4",)),)), session=session_id(4)
        ),
        msgspec.structs.replace(checkpoint(1, DeviceRecord(esn="E5", state="online"), session=session_id(5)), rae="B"),
        headers=[("mqtt-received-at", b"2026-11-25T04:08:00.000Z")],
    )


FILTERS = (
    ([], [5, 1, 2, 3, 4]),
    (["--rae", RAE], [1, 2, 3, 4]),
    (["--state", "asleep"], [2]),
    (["--esn", "E5"], [5]),
    (["--mac", "02-00-00-00-00-01"], [1]),
    (["--mac", "0200.0000.0004"], [4]),
    (["--ip", "10.0.0.7"], [1]),
    (["--ip", "FE80:0::4%lan0"], [4]),
    (["--attribute", "test_state=in_test"], [1]),
    (["--attribute", "test_state=available"], []),
    (["--attribute", "n=1"], [2]),
    (["--attribute", "n=1", "--attribute", "test_state=in_test"], []),
    (["--attribute", "n=1e999999"], []),
    (["--attribute", "n=0e-99999"], []),
    (["--since", "2026-11-25T04:00:00-16:00"], [5, 1, 2, 3, 4]),
    (["--attribute", "n=" + "9" * 5000], []),
    (["--attribute", 'n="\\u0000"'], []),
    (["--attribute", 'n="\\ud800"'], []),
    (["--attribute", "n=" + "[" * 100_000], []),
    (["--stale"], [3]),
    (["--stale", "--state", "online"], []),
    (["--since", "1h"], [5, 1, 2, 3, 4]),
    (["--since", "2999-01-01T00:00:00Z"], []),
    (["--limit", "2"], [5, 1]),
    (["--sort", "rev"], [5, 1, 4, 3, 2]),
    (["--sort", "rev", "--reverse", "--limit", "2"], [2, 3]),
    (["--sort", "rev", "--reverse"], [2, 3, 4, 1, 5]),
    (["--sort", "rev", "--reverse", "--limit", "4"], [2, 3, 4, 1]),
    (["--sort", "name"], [2, 1, 5, 3, 4]),
    (["--sort", "name", "--reverse"], [1, 2, 4, 3, 5]),
    (["--sort", "esn", "--limit", "3"], [1, 5, 2]),
    (["--sort", "ip", "--limit", "1"], [1]),
    (["--sort", "state", "--limit", "1"], [2]),
    (["--sort", "rae", "--reverse", "--limit", "1"], [4]),
    (["--rae", RAE, "--sort", "stored", "--limit", "9"], [1, 2, 4, 3]),  # 3 has no checkpoint yet: judged by full rules
)


def test_filters_and_orders(lan, config, capsys):
    for words, expected in FILTERS:
        code = run(config, "devices", "--json", *words)
        assert [int(one["session"][:8], 16) for one in shown_json(capsys)] == expected, words
        assert code == (exit_codes.OK if expected else exit_codes.DIFFERENT), words


def test_a_walk_over_many_pages_misses_nothing(connection, config, capsys, monkeypatch):
    many_rows.fill(connection, sessions=1000)
    monkeypatch.setattr(devices, "PAGE_SESSIONS", 7)
    for words, count in (
        ([], 950),
        (["--state", "online"], 200),
        (["--attribute", "number=17"], 1),
        (["--sort", "changed", "--reverse", "--limit", "3"], 3),
        (["--limit", "100"], 100),
    ):
        assert run(config, "devices", "--json", *words) == exit_codes.OK
        found = shown_json(capsys)
        assert len({(one["rae"], one["session"]) for one in found}) == len(found) == count
        if not words:
            assert found == sorted(found, key=lambda one: (one["rae"], one["session"]))
        if "--reverse" in words:
            assert [one["name"] for one in found] == ["device 998", "device 997", "device 996"]


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("2001:DB8::1", "2001:db8::1"),
        ("2001:0db8:0000:0000:0000:0000:0000:0002", "2001:DB8::2"),
        ("2001:db8:0:0:0:0:0:3", "2001:db8::3"),
        ("::ffff:10.0.0.9", "::ffff:a00:9"),
        ("::ffff:a00:9", "::FFFF:10.0.0.9"),
    ],
)
def test_an_ipv6_address_is_found_however_its_rae_spells_it(fill, config, capsys, said, asked):
    interfaces = (Interface(mac="02:00:00:00:00:01"), Interface(mac="02:00:00:00:00:02", ip6=("fe80::1", said)))
    fill(checkpoint(1, DeviceRecord(interfaces=interfaces)))
    assert run(config, "devices", "--json", "--ip", asked) == exit_codes.OK
    assert [one["session"] for one in shown_json(capsys)] == [SESSION]
    assert run(config, "devices", "--ip", "fe80::2") == exit_codes.DIFFERENT


BAD = (
    (["devices", "--limit", "-1"], "argument --limit: expected 1 to 100000, got '-1'"),
    (["devices", "--limit", "many"], "argument --limit: expected 1 to 100000, got 'many'"),
    (
        ["devices", "--mac", "02:00"],
        "argument --mac: expected a MAC address such as 02:00:5e:10:00:01, got '02:00'",
    ),
    (["devices", "--ip", "10.0.0.256"], "argument --ip: expected an IPv4 or IPv6 address, got '10.0.0.256'"),
    (["devices", "--attribute", "test_state"], "argument --attribute: expected NAME=VALUE"),
    (
        ["devices", "--attribute", "a=1", "--attribute", "a=2"],
        "argument --attribute: 'a' was given twice, and a device has one value of it",
    ),
    (["devices", "--attribute", "a=b\0c"], "argument --attribute: expected printable text"),
    (["devices", "--attribute", "a=\udcff"], "argument --attribute: expected printable text"),
    (["devices", "--esn", "\udcff"], "argument --esn: expected printable text"),
    (["history", "--code", "\udcff"], "argument --code: expected printable text"),
    (["devices", "--state", "on"], "argument --state: invalid choice: 'on'"),
    (["devices", "--since", "yesterday"], "argument --since: expected 30m, 2h, 3d or an RFC 3339 time"),
    (["devices", "--rae", "a/b"], "argument --rae: expected the serial of a RAE, got 'a/b'"),
    (["devices", "--watch", "0"], "argument --watch: expected 0.1 s or more, got '0'"),
    (["device", "xyz"], "argument ID: expected the id of a device session, or how it begins, got 'xyz'"),
    (["device", ""], "argument ID: expected the id of a device session"),
    (["device", "00", "--events", "0"], "argument --events: expected 1 to 100000"),
    (["history", "0000%"], "argument ID: expected the id of a device session"),
    (["history", "--limit", "0"], "argument --limit: expected 1 to 100000"),
    (["raes", "--limit", "1e9"], "argument --limit: expected 1 to 100000"),
    (["watch", "--count", "-1"], "argument --count: expected 1 to 100000, got '-1'"),
    (["resync"], "one of the arguments --rae --all is required"),
    (["resync", "--all", "--rae", "R1"], "not allowed with argument --all"),
    (["resync", "--all", "--rate", "-1"], "argument --rate: expected a rate per second, 0 or more, got '-1'"),
    (["resync", "--all", "--as", "eve"], "argument --as: expected op-NAME, got 'eve'"),
    (["resync", "--all", "--lifetime", "3601"], "argument --lifetime: expected whole seconds, 1 to 3600"),
)


@pytest.mark.parametrize(("words", "sentence"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_arguments_are_named(tmp_path, capsys, words, sentence):
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "none.yaml", *words)
    assert end.value.code == exit_codes.USAGE
    assert sentence in capsys.readouterr().err


def test_a_request_to_what_is_no_session_is_wrong_usage(tmp_path, capsys):
    assert run(tmp_path / "none.yaml", "request", "xyz", "wake") == exit_codes.USAGE
    assert "expected the id of a device session, or how it begins, got 'xyz'" in capsys.readouterr().err


def test_resync_without_any_rae_says_so(connection, config, capsys):
    assert run(config, "resync", "--all") == exit_codes.DIFFERENT
    assert "no RAE was ever heard of" in capsys.readouterr().err


def test_watch_looks_again_until_ctrl_c(lan, config, capsys):
    looks = []

    def sleep(wait_s):
        looks.append(wait_s)
        if len(looks) == 3:
            raise KeyboardInterrupt

    args = dmpctl_args("devices", config, "--json", "--watch", "0.5")
    assert showing.show(args, lambda _: showing.View([1], lambda: "x"), sleep=sleep) == exit_codes.OK
    assert looks == [0.5] * 3
    assert capsys.readouterr().out.splitlines() == ["[1]"] * 3


def test_watch_outlives_an_absent_database(config, capsys):
    config.write_text(yaml.safe_dump({"database": {"conninfo": "host=/nonexistent dbname=x"}}))
    looks = []

    def sleep(wait_s):
        looks.append(wait_s)
        if len(looks) == 2:
            raise KeyboardInterrupt

    args = dmpctl_args("devices", config, "--watch")
    assert showing.show(args, lambda _: showing.View([], lambda: "x"), sleep=sleep) == exit_codes.OK
    assert looks == [showing.WATCH_S] * 2
    assert capsys.readouterr().err.count("/nonexistent") >= 2


def test_watch_on_a_terminal_draws_one_screen(lan, config, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(showing.tables, "console", lambda: Console(file=screen, force_terminal=True, width=60))
    monkeypatch.setattr(showing.sys.stdout, "isatty", lambda: True)
    views = iter([showing.View([], lambda: "first"), showing.NothingToShowError("gone", 1), KeyboardInterrupt()])
    looks = []

    def look(_):
        view = next(views)
        if isinstance(view, showing.View):
            return view
        raise view

    args = dmpctl_args("devices", config, "--watch")
    assert showing.show(args, look, sleep=looks.append) == exit_codes.OK
    said = screen.getvalue()
    assert said.startswith("\x1b[?1049h"), "the other screen"
    assert said.endswith("\x1b[?25h\x1b[?1049l"), "and back, with the cursor"
    assert "first" in said
    assert "gone" in said
    assert looks == [showing.WATCH_S] * 2


def dmpctl_args(command, config, *words):
    parser = argparse.ArgumentParser()
    ctl_devices.configure(parser)
    return argparse.Namespace(command=command, **vars(parser.parse_args(["--config", str(config), *words])))


def test_history(lan, fill, config, capsys):
    fill(change(8, seq=8, session=session_id(2), patch=RecordPatch(state="online"), cause="probe"))
    fill(closed(9, session=session_id(2)))
    for words, count in (
        ([], 6),
        (["--rae", RAE], 5),
        (["00000002"], 3),
        (["00000002", "--code", "closed"], 1),
        (["--since", "1h"], 6),
        (["--since", "2999-01-01T00:00:00Z"], 0),
        (["--limit", "2"], 2),
    ):
        assert run(config, "history", "--json", *words) == (exit_codes.OK if count else exit_codes.DIFFERENT), words
        assert len(shown_json(capsys)) == count, words
    assert run(config, "history", "00000002") == exit_codes.OK
    out = capsys.readouterr().out
    for words in ("new → asleep", "asleep → online (probe)", "left", "3 events"):
        assert words in out
    assert run(config, "history", "ffff") == exit_codes.DIFFERENT
    assert run(config, "history", "0000000") == exit_codes.AMBIGUOUS
    assert "5 sessions begin with 0000000" in capsys.readouterr().err


@pytest.mark.parametrize(("sessions", "said"), [(20, "20 sessions"), (21, "more than 20 sessions")])
def test_a_prefix_of_many_sessions_says_whether_there_are_more(fill, config, capsys, sessions, said):
    fill(*(checkpoint(1, session=session_id(0xAB00 + number)) for number in range(sessions)))
    assert run(config, "device", "0000ab") == exit_codes.AMBIGUOUS
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith(f"{said} begin with 0000ab:")
    assert len(rest) == (20 if sessions == 20 else 21)
    assert (rest[-1].strip() == "…") == (sessions > 20)


def test_history_tells_the_states_that_came_in_one_batch(fill, config, capsys):
    states = ("online", "asleep", "standby")
    steps = [change(rev, seq=rev, patch=RecordPatch(state=states[rev % 3]), cause="probe") for rev in range(2, 5)]
    fill(checkpoint(1, DeviceRecord(state="offline"), seq=1), *steps)
    fill(*(change(rev, seq=rev, patch=RecordPatch(state=states[rev % 3])) for rev in range(5, 20)))
    assert run(config, "history", SESSION) == exit_codes.OK
    first, second = [line for line in capsys.readouterr().out.splitlines() if "state" in line]
    assert "asleep → 8 more → asleep → standby → online → asleep → standby → online → asleep " in first
    assert "new → offline → standby → online → asleep (probe)" in second


@pytest.mark.parametrize(
    "detail",
    [
        {"to": 1, "way": 5},
        {"to": "x", "passed": "many"},
        {"to": "x", "way": {}},
        {"to": "x", "way": [1, 2]},
        {"to": "x", "way": [[], []]},
        {"to": "x", "way": "[[],[]]"},
        {"to": "x", "way": "["},
        {"to": "x", "from": [1], "cause": {}},
        {"from": "y"},
    ],
)
def test_an_event_of_a_rae_that_looks_like_one_of_ours_is_shown_as_it_is(fill, config, capsys, detail):
    content = {name: Raw(json.dumps(value).encode()) for name, value in detail.items()}
    fill(
        checkpoint(1, TV, seq=1),
        Event(v=1, rae=RAE, session=SESSION, at=AT, epoch=EPOCH, code="state", detail=content, seq=2),
    )
    assert run(config, "history") == exit_codes.OK
    out = capsys.readouterr().out
    assert all(json.dumps(value, separators=(",", ":")) in out for value in detail.values())
    assert "new → online" in out
    assert "2 events" in out


def test_what_a_device_says_cannot_steer_the_terminal(fill, config, capsys):
    record = DeviceRecord(name="\x1b[31mred\x07", attributes={"\x1b]0;x": Raw(b'"\\u001b[2J"')})
    fill(checkpoint(1, record), Event(v=1, rae=RAE, session=SESSION, at=AT, epoch=EPOCH, code="\x1b[2J\x07"))
    for words in (["devices"], ["device", session_id(1)], ["history"]):
        assert run(config, *words) == exit_codes.OK
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\x07" not in out


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


def test_an_age_of_before_there_was_a_bound_does_not_break_the_table(fill, connection, config, capsys):
    fill(msgspec.structs.replace(status(RAE), outbox_rows=1))
    connection.execute("""UPDATE rae SET status = status || '{"outbox_age_s": 1e308}'::jsonb""")
    assert run(config, "raes") == exit_codes.OK
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(RAE)]
    assert "> 1000 y" in line
    fill(msgspec.structs.replace(status(RAE), run=99))
    assert run(config, "raes") == exit_codes.OK
    assert "> 1000 y" not in capsys.readouterr().out, "the next status takes its place"


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
    for words, count in (
        (["--rae", "RAE-2"], 1),
        (["--rae", "nobody"], 0),
        (["--limit", "2"], 2),
        (["--unreachable"], 3),
    ):
        assert run(config, "raes", "--json", *words) == (exit_codes.OK if count else exit_codes.DIFFERENT)
        assert len(shown_json(capsys)) == count, words
    assert [one.silence_s for one in query.raes(connection, now=NOW)] == [120.0, 120.0, None]


def test_a_rae_counts_the_devices_that_it_has(fill, connection):
    gone = session_id(3)
    fill(
        status(RAE),
        checkpoint(1, TV, session=session_id(1), seq=1),
        checkpoint(1, TV, session=session_id(2), seq=2),
        closed(2, session=session_id(2), seq=3),
        checkpoint(1, TV, session=gone, seq=4),
        Roster(v=1, rae=RAE, session="rae", at=AT, epoch=EPOCH, first=gone, last=gone, sessions=(), seq_high=9),
    )
    (one,) = query.raes(connection, now=NOW)
    assert (one.devices, one.online, one.stale) == (1, 1, 0), "neither one that ended nor one that is absent"


def test_a_device_is_reachable_while_its_rae_is(fill, connection):
    def reachable(now):
        (listed,) = devices.find(connection, DeviceFilter(), limit=10, now=now)
        shown = query.device(connection, RAE, SESSION, now=now)
        assert listed.reachable == shown.reachable
        return shown.reachable

    heard = [("mqtt-received-at", b"2026-11-25T04:08:00.000Z")]
    fill(checkpoint(1, TV))
    assert not reachable(NOW), "no status was ever heard"
    fill(status(RAE), headers=heard)
    assert reachable(NOW)
    assert not reachable(NOW.replace(minute=11, second=1)), "silence"
    fill(status(RAE, "lost"), headers=heard)
    assert not reachable(NOW)


def test_every_interface_of_a_device_leads_to_it(fill, connection):
    interfaces = tuple(Interface(mac=f"02:00:00:00:00:0{n}", ip4=f"10.0.0.{n}") for n in (1, 2, 3))
    fill(checkpoint(1, DeviceRecord(interfaces=interfaces)), checkpoint(1, session=session_id(2)))
    for one in interfaces:
        for wanted in (DeviceFilter(mac=one.mac), DeviceFilter(ip=one.ip4)):
            assert [found.session for found in devices.find(connection, wanted, limit=10)] == [SESSION], wanted


def test_history_leaves_canaries_out_unless_asked(fill, connection):
    fill(checkpoint(1, TV), msgspec.structs.replace(checkpoint(1, TV), rae="canary-0001"))
    assert [event.rae for event in history.read(connection)] == [RAE]
    assert {event.rae for event in history.read(connection, canary=True)} == {RAE, "canary-0001"}
    assert [event.rae for event in history.read(connection, rae="canary-0001")] == ["canary-0001"]


def test_a_device_is_shown_with_its_newest_events(fill, connection):
    fill(checkpoint(1, TV, seq=1))
    for minute, state in enumerate(("asleep", "standby", "offline"), 1):
        said = change(minute + 1, seq=minute + 1, patch=RecordPatch(state=state))
        fill(msgspec.structs.replace(said, at=AT.replace(minute=minute)))
    shown = query.device(connection, RAE, SESSION, events_max=2)
    assert [event.detail["to"] for event in shown.events] == ["offline", "standby"]


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
