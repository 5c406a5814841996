"""A run of the canary, as its first line in the database and as its report; what a test is about is given by name."""

from dmpd.canary.report import Facts, Report
from dmpd.canary.store import NewRun
from dmpd.canary.summary import summarize

QUICK = summarize([0.05] * 100)
GOOD = Facts(
    clients=10,
    connected=10,
    times={"row": QUICK, "connect": QUICK, "puback": QUICK, "kafka": QUICK},
    sent=130,
    acked=130,
    arrived=130,
    rows_compared=10,
    requests_asked=5,
    probes=8,
    probes_expected=8,
    control={"before": QUICK, "during": QUICK, "after": QUICK},
    lag_zero_s=1.0,
    cleaned=10,
)
"""Everything proved and kept to."""

_COMMON = {
    "trigger": "hand",
    "host": "h",
    "build": "1",
    "seed": 1,
    "clients": 10,
    "ramp": "linear",
    "profile": "steady",
    "changes": 8,
}


def new_run(run, **changes):
    return NewRun(**{"run": run, "epoch": 5} | _COMMON | changes)


def report_of(run, **changes):
    given = {
        "run": run,
        "verdict": "pass",
        "reasons": (),
        "started_at": "2026-11-28T00:00:00+00:00",
        "took_s": 5.0,
        "facts": Facts(),
    }
    return Report(**given | _COMMON | changes)
