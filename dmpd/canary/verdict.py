"""The verdict: facts against thresholds and against the last runs. Pure.

``fail`` outranks ``unknown``: what was shown to be broken stays broken, however little else was proved. ``unknown``
outranks ``degraded`` and ``pass``: what was not proved is not passed.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from dmpd.canary.report import Counted, Facts, Reason, Word, p99s
from dmpd.canary.settings import ThresholdSettings

_RANK: Final[Sequence[Word]] = ("pass", "degraded", "unknown", "fail")
RUNNER_BEHIND_MAX_S: Final = 5.0


def judge(
    facts: Facts, limits: ThresholdSettings, baseline: Sequence[Mapping[str, float]]
) -> tuple[Word, list[Reason]]:
    """The verdict and its reasons, gravest first; ``pass`` has none.

    Args:
        facts: Of the run.
        limits: What it must keep to.
        baseline: ``p99s`` of the last comparable runs, newest first.
    """
    has_times = facts.runner_behind_s <= RUNNER_BEHIND_MAX_S  # else they tell of the runner, and accuse nobody
    reasons = [
        *facts.problems,
        *_counts(facts, limits),
        *_connections(facts, limits),
        *(_times(facts, limits) if has_times else ()),
        *_platform(facts),
        *_proof(facts),
        *(_against_baseline(facts, limits, baseline) if has_times else ()),
    ]
    reasons.sort(key=lambda reason: -_RANK.index(reason.word))
    return (reasons[0].word if reasons else "pass"), reasons


def _counts(facts: Facts, limits: ThresholdSettings) -> Iterator[Reason]:
    for name, found, most, what in (
        ("lost", facts.lost, limits.lost_max, "messages lost between the broker and Kafka"),
        ("wrong", facts.wrong, limits.wrong_max, "records or rows wrong"),
        ("reordered", facts.reordered, limits.reordered_max, "records out of order"),
        ("rows_behind", facts.rows_behind, 0, "rows that never caught up with Kafka"),
        ("publish_refused", facts.refused, 0, "messages that the broker did not take"),
        ("requests_unanswered", facts.requests_unanswered, limits.requests_unanswered_max, "requests unanswered"),
        ("acl_hole", facts.acl_holes, 0, "things that the broker should have refused"),
        ("leftovers", facts.leftovers, 0, "leftovers in the broker or the database"),
        ("control_lost", facts.control_lost, 0, "messages of the control group lost"),
    ):
        if found.count > most:
            yield _fail(name, found, f"{found.count} {what}, at most {most} allowed")


def _connections(facts: Facts, limits: ThresholdSettings) -> Iterator[Reason]:
    if facts.clients and facts.connected / facts.clients < limits.connect_success_min:
        sentence = f"{facts.connected} of {facts.clients} clients got in, {limits.connect_success_min:.2%} expected"
        yield _fail("connect_failed", facts.connect_errors, sentence)
    if facts.disconnects.count > limits.disconnects_max:
        sentence = f"{facts.disconnects.count} connections ended too early, at most {limits.disconnects_max} allowed"
        yield _fail("disconnects", facts.disconnects, sentence)
    if facts.control_connect_errors.count:
        sentence = f"{facts.control_connect_errors.count} clients of the control group did not get in"
        yield _fail("control_connect_failed", facts.control_connect_errors, sentence)
    if facts.control_disconnects.count:
        sentence = f"{facts.control_disconnects.count} connections of the control group ended too early"
        yield _fail("control_disconnects", facts.control_disconnects, sentence)


def _times(facts: Facts, limits: ThresholdSettings) -> Iterator[Reason]:
    if facts.late.count > limits.late_max:
        what = f"messages later than {limits.late_after_s:g} s"
        yield _fail("late", facts.late, f"{facts.late.count} {what}, at most {limits.late_max} allowed")
    row = facts.times.get("row")
    if row is not None and row.p99 is not None and row.p99 > limits.end_to_end_p99_max_s:
        yield _slow("end_to_end_slow", f"publishing to row p99 {row.p99:.2f} s", limits.end_to_end_p99_max_s)
    if facts.lag_zero_s is not None and facts.lag_zero_s > limits.lag_zero_max_s:
        yield _slow("lag", f"the stream's lag was 0 {facts.lag_zero_s:.1f} s after the flash", limits.lag_zero_max_s)
    during = facts.control.get("during")
    most_s = limits.control_herd_p99_max_s if facts.ramp == "herd" else limits.control_during_p99_max_s
    if during is not None and during.p99 is not None and during.p99 > most_s:
        yield _slow("control_slow", f"control group p99 {during.p99:.2f} s during the crowd", most_s)
    before, after = facts.control.get("before"), facts.control.get("after")
    if before is not None and after is not None and before.p99 is not None and after.p99 is not None:
        most_s = max(limits.control_floor_s, limits.control_after_ratio_max * before.p99)
        if after.p99 > most_s:
            sentence = f"control group p99 {after.p99:.3f} s after the crowd, {before.p99:.3f} s before it"
            yield _slow("control_not_recovered", sentence, most_s)


def _platform(facts: Facts) -> Iterator[Reason]:
    if facts.worker_deaths:
        sentence = f"{facts.worker_deaths} workers of the Cloud Registry died meanwhile"
        yield Reason(name="worker_deaths", word="degraded", sentence=sentence)
    for former in facts.former:
        sentence = f"run {former.run} of {former.host}, started {former.started_at}, never ended: its runner died"
        yield Reason(name="former_run_died", word="degraded", sentence=sentence)
    if facts.swept:
        sentence = f"{facts.swept} device sessions that earlier runs had left open were closed"
        yield Reason(name="former_left_sessions", word="degraded", sentence=sentence)
    if facts.unswept:
        sentence = f"{facts.unswept} device sessions that earlier runs had left open could not be closed"
        yield Reason(name="former_sessions_stay", word="degraded", sentence=sentence)
    before, after = facts.broker.get("before", {}), facts.broker.get("after", {})
    for name in ("subscriptions", "retained"):
        # RAEs come and go meanwhile, and each client has looked for its own leftovers: only a crowd's worth is odd.
        if 2 * (after.get(name, 0) - before.get(name, after.get(name, 0))) > facts.connected:
            sentence = f"the broker counts {after[name]} {name}, {before[name]} before the run"
            yield Reason(name="broker_counts_grew", word="degraded", sentence=sentence)


def _proof(facts: Facts) -> Iterator[Reason]:
    """What must have been seen for a ``pass``: absence of evidence is none."""
    if any(problem.word == "unknown" for problem in facts.problems):
        return  # said already, and better
    if facts.runner_behind_s > RUNNER_BEHIND_MAX_S:
        yield _unknown("runner_overloaded", f"the runner itself sent up to {facts.runner_behind_s:.1f} s too late")
    if not facts.arrived:
        yield _unknown("nothing_seen", "no record of the crowd was seen in Kafka")
    elif facts.rows_compared < facts.connected:
        yield _unknown("rows_not_compared", f"{facts.rows_compared} rows compared, {facts.connected} expected")
    row = facts.times.get("row")
    if facts.rows_compared and (row is None or row.n < facts.rows_compared):
        sentence = (
            f"{0 if row is None else row.n} times of rows for {facts.rows_compared} rows: how long they took is open"
        )
        yield _unknown("rows_not_timed", sentence)
    broken = facts.disconnects.count or facts.control_disconnects.count
    if (facts.unsettled or facts.unsent) and not (broken or facts.refused.count):
        sentence = f"{facts.unsettled} messages unanswered, {facts.unsent} never sent, on connections that held"
        yield _unknown("unsettled", sentence)
    if facts.lag_zero_s is None:
        yield _unknown("lag_unknown", "the stream's lag after the flash was not seen to end")
    if any(facts.control.get(name) is None or not facts.control[name].n for name in ("before", "during", "after")):
        yield _unknown("control_unknown", "the control group was not seen before, during and after the crowd")
    if facts.probes + facts.acl_holes.count < facts.probes_expected:
        yield _unknown("probes_unknown", f"{facts.probes} probes were refused, {facts.probes_expected} expected")
    if facts.cleaned < facts.connected:
        yield _unknown("cleanup_unknown", f"{facts.cleaned} clients looked for leftovers, {facts.connected} expected")


def _against_baseline(
    facts: Facts, limits: ThresholdSettings, baseline: Sequence[Mapping[str, float]]
) -> Iterator[Reason]:
    for name, value_s in p99s(facts).items():
        known = [run[name] for run in baseline[: limits.baseline_runs] if name in run]
        if len(known) < limits.baseline_runs_min:
            continue
        usual_s = median(known)
        if value_s > max(limits.baseline_floor_s, limits.baseline_ratio_max * usual_s):
            sentence = f"{name} p99 {value_s:.3f} s, {usual_s:.3f} s in the last {len(known)} runs"
            yield Reason(name=f"slower_than_usual_{name}", word="degraded", sentence=sentence)


def _fail(name: str, found: Counted, sentence: str) -> Reason:
    return Reason(name=name, word="fail", sentence=sentence, examples=found.examples)


def _slow(name: str, sentence: str, most_s: float) -> Reason:
    return Reason(name=name, word="fail", sentence=f"{sentence}, at most {most_s:.3g} s allowed")


def _unknown(name: str, sentence: str) -> Reason:
    return Reason(name=name, word="unknown", sentence=sentence)
