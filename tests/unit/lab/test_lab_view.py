"""What people read: the line of counts, the screen, the report."""

import io
import json

import pytest
from rich.console import Console

from dmpd.lab.observation import DatabaseTotals, EdgeTotals, LanDevice, NewestChange, Observation
from dmpd.lab.report import Report
from dmpd.lab.supervision import PartState
from dmpd.lab.view import count_line, delay_line, report_table, screen, status_table

SEEN = Observation(
    edge=EdgeTotals(committed=1204, outbox_rows=3, connected=5, raes=5),
    in_kafka=1204,
    database=DatabaseTotals(rows=200, revs=1204, by_state={"online": 150, "asleep": 50}),
    lag=12,
    lan=tuple(
        LanDevice(
            session="s", hostname=f"dut-{n}", state="asleep", ip=f"10.77.1.{n}", mac="m", vendor="[Aster]", esn="E"
        )
        for n in range(1, 15)
    ),
    newest=(NewestChange("2026-11-25T04:35:48.123+00:00", "sim-0001", "7b0a36d2-6c1f", "state [offline]"),),
)


def drawn(thing):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(thing)
    return console.export_text()


def test_the_line_of_counts():
    assert count_line(SEEN) == "committed 1,204 · in Kafka 1,204 · in database 1,204 · lost 0"


def test_who_does_not_answer_is_a_dash():
    assert count_line(Observation()) == "committed - · in Kafka - · in database - · lost 0"


def test_the_line_of_delays():
    assert "p50 51 ms · p99 100 ms · 100 rows" in delay_line([float(value) for value in range(1, 101)])
    assert "no rows" in delay_line([])


@pytest.mark.parametrize("seen", [SEEN, Observation()])
def test_the_screen_draws_whatever_is_missing(seen):
    parts = [PartState("kafka", "RUNNING", 12, 5), PartState("bridge", "BACKOFF", 0, 0)]
    text = drawn(screen(seen, parts, [1.0], message="kill -9 kafka", hints=["dmpctl devices"]))
    assert "kill -9 kafka" in text
    assert "dmpctl devices" in text
    assert "BACKOFF" in text


def test_the_screen_shows_devices_queues_and_what_a_device_said_as_it_said_it():
    text = drawn(screen(SEEN, [], [], message="", hints=[]))
    assert "state [offline]" in text  # no markup of a device's own
    assert "5 of 5" in text
    assert "150" in text
    assert "10.77.1.12 " in text
    assert "[Aster]" in text
    assert "and 2 more" in text


def test_the_report_is_one_json_line_and_names_what_did_not_hold():
    report = Report(raes=5, devices=200, changes=1204, p50_ms=40.5, p99_ms=301.0, kills=5, lan_online=3)
    report.dhcp_to_row_p99_s, report.offline_s, report.back_s, report.sessions = 0.25, 1.5, 0.5, 3
    report.requests["done"] += 2
    assert json.loads(report.json_line()) == {
        "raes": 5,
        "devices": 200,
        "changes": 1204,
        "p50_ms": 40.5,
        "p99_ms": 301.0,
        "kills": 5,
        "lost": 0,
        "wrong": 0,
        "lan_online": 3,
        "dhcp_to_row_p99_s": 0.25,
        "offline_s": 1.5,
        "back_s": 0.5,
        "sessions": 3,
        "requests": {"done": 2},
    }
    assert report.held
    report.timings.append(("first row", 12.34))
    report.failures.append("bridge killed: not within 60 s")
    assert not report.held
    text = drawn(report_table(report, total_s=100.0))
    assert "12.3" in text
    assert "did not hold: bridge killed" in text
    assert "everything held" not in text


def test_the_status_tells_the_daemons_own_word():
    parts = [{"name": "bridge", "state": "RUNNING", "pid": 4, "up_s": 9}]
    text = drawn(status_table({"pid": 1, "parts": parts, "health": {"bridge": {"state": "degraded"}}}))
    assert "degraded" in text
