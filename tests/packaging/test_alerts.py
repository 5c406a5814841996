"""The alert rules: promtool takes them, each fires on what it is for and is quiet otherwise, each has its paragraph."""

import re
import shutil
import subprocess

import pytest
import yaml

from dmpd.cli.reference import reference
from dmpd.lab.layout import CHECKOUT, ETC
from dmpd.runtime import metrics
from tests.support.services import unavailable

pytestmark = pytest.mark.slow
RULES = ETC / "prometheus" / "dmpd-alerts.yaml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
AT = {"DmpdCanaryUnproved": "5h"}
"""When it is looked at; else after an hour."""
"""When it is looked: each series says what it was in the 60 minutes before, one value a minute."""


def counted(series, by=1):
    """A counter that grew by ``by`` five minutes ago; one that grew before that stays quiet."""
    return {series: f"0x55 {by}x15"}, {series: f"{by}x70"}


def noticed(series):
    """Fires at a single event, also if the series begins with it, as one with labels does, or after a start."""
    grew, quiet = counted(series)
    return grew, {series: "_x55 1x15"}, quiet


def above(series, fires, quiet):
    return {series: f"{fires}x70"}, {series: f"{quiet}x70"}


# Each: series that must fire (one or more), and last those that must not.
CASES = {
    "DmpdDaemonDown": ({'up{job="dmpd-bridge"}': "0x70"}, {'up{job="dmpd-bridge"}': "1x70", 'up{job="node"}': "0x70"}),
    "DmpdDaemonDegraded": (
        {'dmpd_daemon_state{state="degraded"}': "1x70"},
        {'dmpd_daemon_state{state="degraded"}': "1x57 0x10", 'dmpd_daemon_state{state="ready"}': "1x70"},
    ),
    "DmpdDaemonRestarts": (
        {"dmpd_daemon_started_seconds": "0+60x70"},
        {"dmpd_daemon_started_seconds": "0x40 9x10 10x20"},
    ),
    "DmpdReloadRefused": noticed("dmpd_daemon_reloads_refused_total"),
    "DmpdStreamLag": above('dmpd_stream_lag_seconds{partition="1"}', 61, 60),
    "DmpdStreamFallsBehind": (
        {'dmpd_stream_lag_seconds{partition="1"}': "61x70"},
        {
            'dmpd_stream_lag_seconds{partition="1"}': "61x70",
            'dmpd_stream_eta_seconds{partition="1"}': "5x70",
            'dmpd_stream_lag_seconds{partition="2"}': "60x70",
        },
    ),
    "DmpdStreamRetention": above('dmpd_stream_lag_seconds{partition="1"}', 86_401, 86_400),
    "DmpdCanaryFailed": above('dmpd_canary_verdict{verdict="fail"}', 1, 0),
    "DmpdCanaryUnproved": (
        {'dmpd_canary_verdict{verdict="unknown"}': "1x310"},
        {'dmpd_canary_verdict{verdict="unknown"}': "0x100 1x180 0x30"},  # one run
    ),
    "DmpdCanarySilent": (
        {"dmpd_canary_ended_age_seconds": "12601x70"},
        {"dmpd_canary_ended_age_seconds": "-1x70"},  # no run is known
        {"dmpd_canary_ended_age_seconds": "12600x70"},
    ),
    "DmpdStreamHalted": above("dmpd_stream_halted_partitions", 1, 0),
    "DmpdStreamPaused": above("dmpd_stream_operator_paused_partitions", 1, 0),
    "DmpdStreamLostRecords": noticed("dmpd_stream_lost_offsets_total"),
    "DmpdStreamDeadLetters": noticed('dmpd_stream_dead_letters_total{reason="text"}'),
    "DmpdStreamDeadLettersDropped": noticed('dmpd_stream_dead_letters_dropped_total{reason="text"}'),
    "DmpdStreamCommitsUnanswered": above("dmpd_stream_commit_unanswered_seconds", 61, 60),
    "DmpdStreamWorkersDie": counted("dmpd_stream_worker_deaths_total", by=9),
    "DmpdStreamWorkersStuck": noticed("dmpd_stream_stuck_workers_total"),
    "DmpdRegistryStale": (
        {"dmpd_registry_stale_sessions": "1500x70", "dmpd_registry_stale_unreachable_sessions": "400x70"},
        {"dmpd_registry_stale_sessions": "1500x70", "dmpd_registry_stale_unreachable_sessions": "600x70"},
    ),
    "DmpdRegistryManyStale": above("dmpd_registry_stale_sessions", 10_001, 10_000),
    "DmpdRegistryRewound": noticed("dmpd_registry_database_rewinds_total"),
    "DmpdRegistryReconcileFails": counted("dmpd_registry_reconcile_failures_total", by=9),
    "DmpdRegistryRetentionFails": counted("dmpd_registry_retention_failures_total", by=9),
    "DmpdBridgeDisconnected": above("dmpd_bridge_connected", 0, 1),
    "DmpdBridgeStalled": above("dmpd_bridge_puback_age_seconds", 31, 30),
    "DmpdBridgeDeadLetters": noticed('dmpd_bridge_dead_letters_total{reason="text"}'),
    "DmpdBridgeStrangers": counted("dmpd_bridge_strangers_total", by=200),
    "DmpdAccessBehind": (
        {"dmpd_access_success_age_seconds": "31x70"},
        {"dmpd_access_success_age_seconds": "-1x70"},  # never yet
        {"dmpd_access_success_age_seconds": "30x70"},
    ),
    "DmpdAccessDown": ({'up{job="dmpd-access"}': "0x70"}, {'up{job="dmpd-access"}': "1x70", 'up{job="node"}': "0x70"}),
    "DmpdAccessForeign": noticed("dmpd_access_foreign_total"),
    "DmpdAccessAuditLost": noticed("dmpd_access_events_dropped_total"),
    "DmpdCertificateEnds": (
        {"dmpd_mqtt_certificate_ends_seconds": "1213000x70"},  # promtool's clock begins at 0
        {"dmpd_mqtt_certificate_ends_seconds": "1213300x70"},
    ),
    "DmpdCrlEnds": (
        {"dmpd_access_crl_expires_seconds": "2591999x70"},
        {
            'dmpd_access_crl_expires_seconds{instance="good"}': "2592000x70",
            'dmpd_access_crl_expires_seconds{instance="not watched"}': "NaN " * 70,
        },
    ),
    "DmpdRaeDisconnected": above("dmpd_local_registry_connected_raes", 0, 1),
    "DmpdRaeOutboxGrows": above("dmpd_local_registry_outbox_rows", 10_001, 10_000),
    "DmpdRaeOutboxCoalesced": noticed("dmpd_local_registry_outbox_coalesced_total"),
    "DmpdRaeStoreRebuilt": noticed("dmpd_local_registry_stores_rebuilt_total"),
}


@pytest.fixture(scope="module")
def promtool():
    found = shutil.which("promtool")
    if found is None:
        unavailable("promtool is not installed (apt-get install prometheus)")

    def run(*words):
        return subprocess.run([found, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)

    return run


def test_promtool_takes_the_rules(promtool):
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


@pytest.mark.parametrize("name", ALERTS)
def test_a_rule_fires_on_what_it_is_for_and_not_otherwise(tmp_path, promtool, name):
    *fires, quiet = CASES[name]
    cases = [*((given, True) for given in fires), (quiet, False)]
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in given.items()],
            "promql_expr_test": [
                {"expr": alerts_like(name), "eval_time": AT.get(name, "1h"), "exp_samples": samples(fires=expected)}
            ],
        }
        for given, expected in cases
    ]
    alone, file = tmp_path / "rule.yaml", tmp_path / "test.yaml"  # all rules, at each minute, took most of the time
    alone.write_text(yaml.safe_dump({"groups": [{"name": "dmpd", "rules": [ALERTS[name]]}]}))
    file.write_text(yaml.safe_dump({"rule_files": [str(alone)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts_like(name):
    return f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'


def samples(*, fires):
    return [{"labels": "{}", "value": 1}] if fires else []


@pytest.fixture(scope="module")
def known():
    reference()  # imports all that declares metrics
    return {one.name: one for one in metrics.declared()}


@pytest.mark.parametrize("name", ALERTS)
def test_a_rule_asks_for_what_the_daemons_show(known, name):
    """Metrics, kinds, labels: a rule with a wrong one is quiet for ever, whatever series the test above makes up."""
    expression = ALERTS[name]["expr"]
    asked = set(re.findall(r"dmpd_\w+", expression))
    assert asked <= known.keys()
    assert {known[one].kind for one in re.findall(r"increase\((\w+)\[", expression)} <= {"counter"}
    assert {known[one].kind for one in re.findall(r"(?<![(\w])(dmpd_\w+)(?:{.*?})? [<>=]", expression)} <= {"gauge"}
    labels = {label for one in asked for label in known[one].labels} | {"job", "instance"}
    named = re.findall(r"(?:by|on) \((.*?)\)", expression) + re.findall(r"{(\w+)=", expression)
    assert {label.strip() for labels_of in named for label in labels_of.split(",")} <= labels
    for series in [series for case in CASES[name] for series in case]:
        metric, *given = re.findall(r"\w+(?==)|^\w+", series)
        assert metric == "up" or set(given) - {"instance"} == set(known[metric].labels), series


def test_each_rule_has_its_case_and_its_paragraph():
    assert set(CASES) == set(ALERTS)
    guide = (CHECKOUT / "docs" / "operations.md").read_text()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        paragraph = re.search(rf"^### {name}\n\n(.+?)(?=\n#|\Z)", guide, re.MULTILINE | re.DOTALL)
        assert paragraph, name
        assert len(paragraph[1].split()) > 20, f"{name}: what to do?"
    headings = re.findall(r"^### (Dmpd\w+)$", guide, re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)
