"""A run of the canary, as its first line in the database and as its report; what a test is about is given by name."""

from dmpd.canary.report import Facts, Report
from dmpd.canary.store import NewRun

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
