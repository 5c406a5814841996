import configparser
import re
import resource

import msgspec
import pytest

from dmpd.canary.settings import CanarySettings
from dmpd.canary.summary import BOUNDS_S, Summary, bars, summarize
from dmpd.lab import supervision
from dmpd.lab.layout import ETC


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"thresholds": {"late_after_s": 10, "end_to_end_p99_max_s": 15}},
            "late_after_s: expected at least end_to_end",
        ),
        ({"thresholds": {"baseline_runs": 3, "baseline_runs_min": 5}}, "baseline_runs_min: expected at most"),
        ({"drain_timeout_s": 20}, "drain_timeout_s: expected at least thresholds.late_after_s"),
        ({"time_box_s": 100}, "time_box_s: expected at least before_s + ramp_s"),
        ({"alarm_s": 12_179}, "alarm_s: expected at least interval_s x (1 + jitter) + time_box_s (12180)"),
        ({"thresholds": {"lost_max": -1}}, "Expected `int` >= 0"),
        ({"ramp": "slow"}, "Invalid enum value 'slow'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(given, said):
    with pytest.raises(msgspec.ValidationError, match=re.escape(said)):
        msgspec.convert(given, CanarySettings)


def test_the_defaults_agree_with_each_other():
    assert CanarySettings().thresholds.lost_max == 0


def test_a_crowd_of_the_default_size_has_files_enough_under_supervisord():
    """Each client is one, of the broker and of the runner; supervisord's own default is 1,024."""
    conf = configparser.RawConfigParser()
    conf.read(ETC / "supervisor" / "supervisord.conf")
    defaults = CanarySettings()
    needed = defaults.clients + defaults.control_clients + 3000  # the fleet's RAEs are there, too
    assert conf.getint("supervisord", "minfds") >= needed
    assert "minfds={files}" in supervision._CONFIG
    assert min(needed, resource.getrlimit(resource.RLIMIT_NOFILE)[1]) <= supervision._FILES


def test_a_summary_says_what_its_values_were():
    found = summarize([0.0005] * 50 + [0.3] * 49 + [70.0])
    assert (found.n, found.p50, found.p95, found.p99, found.max) == (100, 0.3, 0.3, 70.0, 70.0)
    assert sum(found.bins) == 100
    assert len(found.bins) == len(BOUNDS_S) + 1
    assert found.bins[-1] == 1


def test_the_bars_show_few_beside_many():
    line = bars(summarize([0.0005] * 1000 + [0.003]))
    assert line == "█ ▂"
    assert bars(Summary()) == ""
