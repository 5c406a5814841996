"""Metrics of the canary's daemon: the last run as it knows it, whichever instance ran it."""

from dmpd.runtime.metrics import counter, gauge

runs = counter(
    "dmpd_canary_runs_total", "Runs that this instance started, by verdict, or why there was none.", ("verdict",)
)
verdict = gauge("dmpd_canary_verdict", "1 for the verdict of the last run, 0 for the others.", ("verdict",))
found = gauge("dmpd_canary_found", "What the last run counted: lost, wrong, reordered, late, duplicates.", ("what",))
p99 = gauge("dmpd_canary_p99_seconds", "The last run's p99: connect, puback, kafka, row, control_during.", ("what",))
ended_age = gauge(
    "dmpd_canary_ended_age_seconds", "How long ago the last run ended, of whichever instance; -1 = none is known."
)
enabled = gauge("dmpd_canary_enabled", "0 while somebody has switched the canary off.")
