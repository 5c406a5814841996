"""The end of the list of revoked certificates: said long before, by metric and log."""

import logging
import math
import re
from datetime import UTC, datetime, timedelta

from dmpd.access import metrics as declared
from dmpd.access.list_watch import WARN_BEFORE_S, ListWatch
from dmpd.lab.layout import ETC
from dmpd.runtime import metrics
from dmpd.runtime.authority import Authority

NOW = datetime(2026, 11, 28, tzinfo=UTC)
MINUTE_S, DAY_S = 60.0, 86_400.0


def left_s():
    (value,) = re.findall(r"^dmpd_access_crl_expires_seconds (.+)$", metrics.render().decode(), re.MULTILINE)
    return float(value)


def test_it_is_said_a_month_before_by_the_log_and_by_the_alert():
    assert WARN_BEFORE_S >= 30 * DAY_S
    rules = (ETC / "prometheus" / "dmpd-alerts.yaml").read_text()
    assert f"expr: dmpd_access_crl_expires_seconds < {WARN_BEFORE_S:.0f}\n" in rules


def test_a_list_that_comes_near_its_end_is_said_once_a_day(tmp_path, caplog):
    made = Authority.create(tmp_path / "ca", name="x", now=NOW, days=31, durable=False)
    watch = ListWatch(str(made.list_file))
    with caplog.at_level(logging.WARNING):
        assert watch.look(0, NOW) == made.ends_at
        assert left_s() == 31 * DAY_S
        assert caplog.records == []
        soon = made.ends_at - timedelta(seconds=WARN_BEFORE_S - 1)
        for step in range(10):
            watch.look((1 + step) * MINUTE_S, soon)
        assert len(caplog.records) == 1
        assert "ends at 2026-12-29T00:00:00Z: then the broker refuses everybody" in caplog.text
        assert left_s() == WARN_BEFORE_S - 1
        watch.look(DAY_S + 2 * MINUTE_S, soon)
        assert len(caplog.records) == 2
        watch.look(3 * DAY_S, made.ends_at + timedelta(days=1))
        assert left_s() == 0


def test_a_list_that_is_not_there_is_as_bad_as_one_that_has_ended_until_it_is(tmp_path, caplog):
    watch = ListWatch(str(tmp_path / "ca" / "crl.pem"))
    assert watch.look(0, NOW) is None
    assert left_s() == 0
    assert "cannot be read" in caplog.text
    Authority.create(tmp_path / "ca", name="x", now=NOW, days=100, durable=False)
    watch.look(MINUTE_S - 1, NOW)
    assert left_s() == 0
    watch.look(MINUTE_S, NOW)
    assert left_s() == 100 * DAY_S


def test_none_is_watched_where_none_is_named():
    declared.crl_expires.set(5)
    assert ListWatch(None).look(0, NOW) is None
    assert math.isnan(left_s())
