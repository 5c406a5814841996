"""What one run has seen so far, as its phases leave it, and the facts that follow from it. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct, structs

from dmpd.canary.arrivals import EXAMPLES_MAX, Arrivals, Checked, Finding
from dmpd.canary.client import PROBE_WRITES
from dmpd.canary.crowd import Connected, Told, counted
from dmpd.canary.history import History
from dmpd.canary.plan import Plan, probing, rae_of
from dmpd.canary.report import Counted, Facts, Former, Reason
from dmpd.canary.settings import CanarySettings
from dmpd.canary.summary import Summary, summarize

_NANO = 1_000_000_000


class Seen(Struct, kw_only=True):
    """Filled by ``phases``; what a run that was cut short did not come to stays as it is here."""

    plan: Plan
    arrivals: Arrivals
    history: History
    control_arrivals: Arrivals
    control_history: History
    former: list[Former]
    problems: list[Reason]
    connected: Sequence[Connected] = ()
    control_connected: Sequence[Connected] = ()
    told: Sequence[Told] = ()
    control_told: Told | None = None
    marks: dict[str, float]
    """Monotonic seconds: ``control ramp flash "flash over" drained over``."""
    flash_s: float = 0.0
    wrong_rows: Finding
    rows_behind: Finding
    compared: int = 0
    applied_ns: Mapping[tuple[int, int], int] = {}
    others_s: Sequence[tuple[float, float]] = ()
    requests_asked: int = 0
    requests_s: Sequence[float] = ()
    requests_unanswered: Finding
    lag_max: int = 0
    lag_done_s: float | None = None
    sys_before: Mapping[str, int] = {}
    sys_after: Mapping[str, int] = {}
    deaths: int | None = None
    leftovers: Finding
    cleaned: int = 0
    swept: int = 0
    unswept: int = 0
    drained: bool = False
    """Whether what was sent had its time to arrive."""
    closed: bool = False
    """Whether that is so of the control group too, which sends until then."""


def begun(settings: CanarySettings, plan: Plan, control_plan: Plan, former: Sequence[Former]) -> Seen:
    """Nothing was seen yet."""
    assert control_plan.first == plan.last + 1
    assert control_plan.clients == settings.control_clients
    return Seen(
        plan=plan,
        arrivals=Arrivals(plan),
        history=History(plan),
        control_arrivals=Arrivals(control_plan),
        control_history=History(control_plan),
        former=list(former),
        problems=[],
        marks={},
        wrong_rows=Finding(),
        rows_behind=Finding(),
        requests_unanswered=Finding(),
        leftovers=Finding(),
    )


def facts_of(seen: Seen, settings: CanarySettings, problems: Iterable[Reason]) -> Facts:
    """All that the verdict needs; ``problems`` come on top of those that the phases met."""
    late_after_s = settings.thresholds.late_after_s
    checked = _checked(seen.arrivals, seen.history, late_after_s, told=bool(seen.told), drained=seen.drained)
    rows_s = list(_rows_s(seen, checked, late_after_s))
    return structs.replace(
        _around(seen, settings, late_after_s, checked),
        times=_times(seen, checked, rows_s),
        sent=checked.sent,
        acked=checked.acked,
        arrived=checked.arrived,
        lost=counted(checked.lost),
        duplicates=counted(checked.duplicates),
        late=counted(checked.late),
        disconnects=_sum(one.disconnects for one in seen.told),
        rows_compared=seen.compared,
        rows_behind=counted(seen.rows_behind),
        requests_asked=seen.requests_asked,
        requests_unanswered=counted(seen.requests_unanswered) if seen.drained else Counted(),
        probes=sum(one.refusals for one in seen.told),
        probes_expected=PROBE_WRITES * len(probing(seen.plan, settings.probes)) if seen.connected else 0,
        lag_zero_s=_since(seen.marks.get("flash over"), seen.lag_done_s),
        lag_max=seen.lag_max,
        worker_deaths=seen.deaths,
        broker={"before": seen.sys_before, "after": seen.sys_after} if seen.sys_before else {},
        cleaned=seen.cleaned,
        former=seen.former,
        swept=seen.swept,
        unswept=seen.unswept,
        problems=[*seen.problems, *problems],
    )


def _around(seen: Seen, settings: CanarySettings, late_after_s: float, checked: Checked) -> Facts:
    """How the crowd came, what the control group and others had of it, and what concerns all of them."""
    control = _checked(
        seen.control_arrivals,
        seen.control_history,
        late_after_s,
        told=seen.control_told is not None,
        drained=seen.drained and seen.closed,
    )
    codes: Counter[str] = Counter()
    for one in seen.connected:
        codes.update(one.codes)
    connected = sum(one.clients for one in seen.connected)
    took_s = max((one.took_s for one in seen.connected), default=0.0)
    control_told = [seen.control_told] if seen.control_told is not None else []
    everybody = [*seen.told, *control_told]
    return Facts(
        clients=settings.clients if seen.connected else 0,
        ramp=settings.ramp,
        connected=connected,
        connack_codes=codes,
        connect_errors=_sum(one.errors for one in seen.connected),
        syn_retries=sum(one.syn_retries for one in seen.connected),
        connects_anew=sum(one.anew for one in seen.connected),
        wrong=_sum((counted(checked.wrong), counted(control.wrong), counted(seen.wrong_rows))),
        reordered=_sum((counted(checked.reordered), counted(control.reordered))),
        unsent=sum(one.unsent for one in everybody),
        unsettled=checked.unsettled + control.unsettled,
        refused=_sum((counted(checked.refused), counted(control.refused))),
        acl_holes=_sum(one.holes for one in everybody),
        leftovers=_sum((*(one.leftovers for one in everybody), counted(seen.leftovers))),
        control=dict(_control(seen)),
        control_connect_errors=_sum(one.errors for one in seen.control_connected),
        control_lost=counted(control.lost),
        control_disconnects=_sum(one.disconnects for one in control_told),
        raes=dict(_others(seen)),
        runner_behind_s=round(max((one.behind_s for one in seen.told), default=0.0), 3),
        connects_per_s=round(connected / took_s, 1) if took_s else 0.0,
        messages_per_s=round(_flash_messages(seen) / seen.flash_s, 1) if seen.flash_s else 0.0,
        crowd_cpu_s=round(sum(one.cpu_s for one in seen.told), 2),
        crowd_rss_bytes=sum(one.rss_bytes for one in seen.told),
    )


def _checked(arrivals: Arrivals, history: History, late_after_s: float, *, told: bool, drained: bool) -> Checked:
    """Without the clients' own account nothing can be compared; before the drain nothing is lost yet."""
    if not told:
        arrivals, history = Arrivals(arrivals.plan), History(history.plan)
    checked = arrivals.check(history, late_after_s=late_after_s)
    if not drained:
        checked.unsettled += checked.lost.count
        checked.lost = Finding()
    return checked


def _times(seen: Seen, checked: Checked, rows_s: Sequence[float]) -> dict[str, Summary]:
    steps = [
        (tcp_s, tls_s, connack_s)
        for one in seen.connected
        for tcp_s, tls_s, connack_s in zip(one.tcp_s, one.tls_s, one.connack_s, strict=True)
    ]
    return {
        "tcp": summarize(one[0] for one in steps),
        "tls": summarize(one[1] for one in steps),
        "connack": summarize(one[2] for one in steps),
        "connect": summarize(sum(one) for one in steps),
        "puback": summarize(checked.puback_s),
        "kafka": summarize(checked.kafka_s),
        "durable": summarize(checked.durable_s),
        "row": summarize(rows_s),
        "request": summarize(seen.requests_s),
    }


def _rows_s(seen: Seen, checked: Checked, late_after_s: float) -> Iterator[float]:
    """From publishing to the row, of every rev that is in one; the late ones are counted."""
    for number, rev, applied_ns in _applied(seen, seen.plan):
        took_s = _row_s(seen.plan, seen.history, number, rev, applied_ns)
        if took_s is None:
            continue
        yield took_s
        if took_s > late_after_s:
            checked.late.add(f"{rae_of(number)} rev {rev}: in its row after {took_s:.1f} s")


def _applied(seen: Seen, plan: Plan) -> Iterator[tuple[int, int, int]]:
    """``(number, rev, when it was in the row at the latest)``: a rev that was never seen came with the next one seen.

    Without those, messages that wait together for something that stands still would count as one, the youngest.
    """
    seen_revs: dict[int, list[int]] = {}
    for number, rev in seen.applied_ns:
        if plan.first <= number <= plan.last:
            seen_revs.setdefault(number, []).append(rev)
    for number, revs in seen_revs.items():
        before = 0
        for rev in sorted(revs):
            for covered in range(before + 1, rev + 1):
                yield number, covered, seen.applied_ns[number, rev]
            before = rev


def _row_s(plan: Plan, history: History, number: int, rev: int, applied_ns: int) -> float | None:
    """``None`` for a rev that nobody sent: what a row says of it is wrong, and counted so elsewhere."""
    slot = rev if rev < plan.event_slot else plan.closed_slot
    sent_ns = history.sent_ns[history.place(number, slot)]
    return (applied_ns - sent_ns) / _NANO if sent_ns else None


def _control(seen: Seen) -> Iterator[tuple[str, Summary]]:
    """The control group's times by when they were sent."""
    history, plan = seen.control_history, seen.control_history.plan
    found: dict[str, list[float]] = {}
    for number, rev, applied_ns in _applied(seen, plan):
        if rev < 2:
            continue
        took_s = _row_s(plan, history, number, rev, applied_ns)
        when = _when(seen, applied_ns / _NANO - took_s) if took_s is not None else None
        if took_s is not None and when is not None:
            found.setdefault(when, []).append(took_s)
    for when in ("before", "during", "after"):
        yield when, summarize(found.get(when, ()))


def _others(seen: Seen) -> Iterator[tuple[str, Summary]]:
    found: dict[str, list[float]] = {}
    for at_s, took_s in seen.others_s:
        when = _when(seen, at_s)
        if when is not None:
            found.setdefault(when, []).append(took_s)
    for when in ("before", "during", "after"):
        yield when, summarize(found.get(when, ()))


def _when(seen: Seen, at_s: float) -> str | None:
    """The crowd is there from the ramp until what it sent has arrived."""
    marks = seen.marks
    if at_s < marks.get("control", float("inf")) or at_s >= marks.get("over", float("inf")):
        return None
    if at_s < marks.get("ramp", float("inf")):
        return "before"
    return "during" if at_s < marks.get("drained", float("inf")) else "after"


def _flash_messages(seen: Seen) -> int:
    """Messages of the flash that got a PUBACK: the changes and the event of each client."""
    code, slots = seen.history.code, seen.plan.slots
    return sum(code[place] == 0 for place in range(len(code)) if 2 <= place % slots <= seen.plan.event_slot)


def _since(began_s: float | None, done_s: float | None) -> float | None:
    return None if began_s is None or done_s is None else round(max(0.0, done_s - began_s), 2)


def _sum(parts: Iterable[Counted]) -> Counted:
    count, examples = 0, list[str]()
    for part in parts:
        count += part.count
        examples += part.examples
    return Counted(count=count, examples=examples[:EXAMPLES_MAX])
