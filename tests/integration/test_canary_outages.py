"""The canary over a lab whose parts stand still, die and go away: what that costs is named, and nothing is lost."""

import os
import signal
import time

import pytest

from tests.support.aio import async_test
from tests.support.canary_lab import (
    CLIENTS,
    broker_pid,
    canary_lab,
    names,
    run_small,
    small,
    told,
    whole_again,
    without,
)
from tests.support.platform import until

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def lab():
    with canary_lab() as found:
        yield found


@pytest.fixture
def whole(lab):
    with whole_again(lab) as found:
        yield found


@async_test
async def test_a_broker_that_stands_still_is_slow_and_killed_breaks_connections_and_loses_nothing_promised(whole):
    pid = broker_pid(whole)

    def freeze_and_kill():
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(5.5)
        finally:
            ((thawed_at,),) = whole.query("SELECT clock_timestamp()")
            os.kill(pid, signal.SIGCONT)
        arrived = "SELECT count(*) FROM device_session WHERE rae > %s AND rae LIKE 'canary-%%' AND applied_at > %s"
        until(lambda: whole.query(arrived, f"canary-{CLIENTS:04}", thawed_at) != [(0,)], "what waited has its rows")
        time.sleep(1.0)  # the canary looks at the rows twice a second
        whole.supervisor.signal("mosquitto", "KILL")

    settings = small(whole, requests=0, flash_s=10.0)
    report = await run_small(whole, at={"flash": freeze_and_kill}, settings=settings)
    assert names(report) >= {"control_slow", "disconnects", "control_disconnects"}, told(report)
    assert report.facts.lost.count == report.facts.wrong.count == 0, told(report)


@async_test
async def test_kafka_away_for_twenty_seconds_is_slow_and_a_dead_worker_of_the_cloud_registry_is_counted(whole):
    def outage():
        with without(whole, "kafka"):
            time.sleep(20)

    report = await run_small(
        whole,
        at={"ramp": lambda: whole.lab("kill", "worker"), "flash": outage},
        settings=small(whole, drain_timeout_s=60.0),
    )
    assert names(report) >= {"control_slow", "late"}, told(report)
    facts = report.facts
    assert facts.times["kafka"].max > 15, "it is what stood between the broker and Kafka"
    assert (facts.lost.count, facts.wrong.count, facts.reordered.count) == (0, 0, 0), told(report)
    assert "worker_deaths" in names(report, "degraded"), told(report)


@async_test
async def test_a_database_that_is_away_makes_rows_late_and_one_that_stays_away_proves_nothing(whole):
    def outage():
        with without(whole, "postgresql"):
            time.sleep(9)

    def return_later():
        time.sleep(2)
        whole.supervisor.restart("postgresql")

    report = await run_small(
        whole,
        at={"flash": outage, "proof": return_later},
        before={"proof": lambda: whole.supervisor.stop("postgresql")},
        settings=small(whole, drain_timeout_s=60.0),
    )
    assert names(report) & {"late", "end_to_end_slow", "control_slow"}, told(report)
    facts = report.facts
    assert facts.times["row"].max > 8 > facts.times["kafka"].p50, "it is what stood between Kafka and the row"
    assert (facts.lost.count, facts.wrong.count, facts.reordered.count) == (0, 0, 0), told(report)
    assert "database_unreachable" in names(report, "unknown"), told(report)
