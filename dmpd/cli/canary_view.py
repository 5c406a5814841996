"""A canary's report, its history and a comparison of two, for people. Pure but for the tables."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dmpd.canary.report import Counted, Facts, Report
from dmpd.canary.summary import Summary, bars
from dmpd.cli import tables

STYLES: Final = {"pass": "bold green", "degraded": "bold yellow", "fail": "bold red", "unknown": "bold magenta"}
_TIMES: Final = (
    ("connect", "connect, all"),
    ("tcp", "  TCP"),
    ("tls", "  TLS"),
    ("connack", "  CONNECT to CONNACK"),
    ("puback", "publish to PUBACK"),
    ("kafka", "publish to Kafka"),
    ("durable", "publish to durable"),
    ("row", "publish to row"),
    ("request", "request to response"),
)
_EXAMPLES_MAX: Final = 3


def verdict_text(word: str) -> Text:
    return Text(word, style=STYLES.get(word, "dim"))


def report_view(report: Report) -> RenderableType:
    """Everything of one run, the verdict last."""
    facts = report.facts
    head = (
        f"run {report.run} of {report.host}, {report.started_at}, {report.took_s:.0f} s, by {report.trigger}:"
        f" {report.clients} clients, ramp {report.ramp}, profile {report.profile}, seed {report.seed}"
    )
    return Group(head, "", _counts(facts), "", _times(facts), "", _around(facts), "", _verdict(report))


def compare_view(one: Report, two: Report) -> RenderableType:
    """Two runs side by side, and by how much the second took longer."""
    table = tables.table(("", one.run[:8], two.run[:8], "ratio"), right=(one.run[:8], two.run[:8], "ratio"))
    table.add_row("verdict", verdict_text(one.verdict), verdict_text(two.verdict), "")
    for name in ("clients", "ramp", "profile", "took_s"):
        table.add_row(name.replace("_s", ", s"), str(getattr(one, name)), str(getattr(two, name)), "")
    for name, first, second in _pairs(one.facts, two.facts):
        ratio = f"{second / first:.2f}" if first and second is not None else "-"
        table.add_row(name, _number(first), _number(second), ratio)
    return table


def _pairs(one: Facts, two: Facts) -> Iterator[tuple[str, float | None, float | None]]:
    for name in ("connects_per_s", "messages_per_s", "lag_zero_s", "crowd_cpu_s"):
        yield name, getattr(one, name), getattr(two, name)
    for name, title in _TIMES:
        first, second = one.times.get(name, Summary()), two.times.get(name, Summary())
        yield f"{title.strip()}, p50", first.p50, second.p50
        yield f"{title.strip()}, p99", first.p99, second.p99
    for when in ("before", "during", "after"):
        first, second = one.control.get(when, Summary()), two.control.get(when, Summary())
        yield f"control group {when}, p99", first.p99, second.p99


def _counts(facts: Facts) -> Table:
    table = tables.table(("what", "count", "examples"), right=("count",))
    table.add_row("clients that got in", f"{facts.connected:,} of {facts.clients:,}", _joined(facts.connect_errors))
    table.add_row("messages sent", f"{facts.sent:,}", "")
    table.add_row("acknowledged by the broker", f"{facts.acked:,}", "")
    table.add_row("seen in Kafka", f"{facts.arrived:,}", "")
    table.add_row("rows compared", f"{facts.rows_compared:,}", "")
    for name, found in (
        ("lost", facts.lost),
        ("wrong", facts.wrong),
        ("out of order", facts.reordered),
        ("late", facts.late),
        ("duplicates (legal)", facts.duplicates),
        ("rows behind Kafka", facts.rows_behind),
        ("publishes refused", facts.refused),
        ("connections broken", facts.disconnects),
        ("leftovers", facts.leftovers),
    ):
        table.add_row(name, f"{found.count:,}", _joined(found))
    answered = facts.requests_asked - facts.requests_unanswered.count
    table.add_row("requests answered", f"{answered} of {facts.requests_asked}", _joined(facts.requests_unanswered))
    table.add_row("ACL probes refused", f"{facts.probes} of {facts.probes_expected}", "")
    table.add_row("ACL holes", str(facts.acl_holes.count), _joined(facts.acl_holes))
    if facts.syn_retries:
        table.add_row("SYN retries", str(facts.syn_retries), "")
    if facts.connects_anew:
        table.add_row("dropped by the broker's queue", str(facts.connects_anew), "begun anew; they count as got in")
    return table


def _times(facts: Facts) -> Table:
    table = _times_table("times")
    for name, title in _TIMES:
        _add_times(table, title, facts.times.get(name, Summary()))
    for when in ("before", "during", "after"):
        _add_times(table, f"control group to row, {when}", facts.control.get(when, Summary()))
    for when in ("before", "during", "after"):
        _add_times(table, f"real RAEs change to row, {when}", facts.raes.get(when, Summary()))
    return table


def _around(facts: Facts) -> Table:
    table = tables.table(("platform", ""))
    table.add_row("connects per second", f"{facts.connects_per_s:,.0f}")
    table.add_row("messages per second in the flash", f"{facts.messages_per_s:,.0f}")
    table.add_row("stream's lag at most", f"{facts.lag_max:,}")
    zero_s = facts.lag_zero_s
    table.add_row("lag 0 after the flash", "-" if zero_s is None else f"{zero_s:.1f} s")
    table.add_row("crowd's processes", f"{facts.crowd_cpu_s:.1f} s of CPU, {facts.crowd_rss_bytes / 2**20:.0f} MiB")
    table.add_row("crowd sent too late by at most", f"{facts.runner_behind_s * 1000:.0f} ms")
    for name in sorted(facts.broker.get("before", {})):
        after = facts.broker.get("after", {}).get(name)
        table.add_row(f"broker: {name}", f"{facts.broker['before'][name]:,} before, {_number(after)} after")
    return table


def _verdict(report: Report) -> RenderableType:
    lines: list[RenderableType] = []
    for reason in report.reasons:
        lines.append(Text.assemble((reason.word, STYLES[reason.word]), f"  {reason.name}: {reason.sentence}"))
        lines += [Text(f"      {example}", style="dim") for example in reason.examples[:_EXAMPLES_MAX]]
    return Group(*lines, Text.assemble("verdict ", verdict_text(report.verdict)))


def _times_table(title: str) -> Table:
    columns = (title, "n", "p50", "p95", "p99", "max", "from fast to slow")
    return tables.table(columns, right=("n", "p50", "p95", "p99", "max"))


def _add_times(table: Table, title: str, found: Summary) -> None:
    values = (found.p50, found.p95, found.p99, found.max)
    table.add_row(title, f"{found.n:,}", *(_time(value) for value in values), bars(found))


def _time(value_s: float | None) -> str:
    if value_s is None:
        return "-"
    return f"{value_s * 1000:.1f} ms" if value_s < 1 else f"{value_s:.2f} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _joined(found: Counted) -> str:
    return "; ".join(tables.printable(example) for example in _some(found.examples))


def _some(examples: Sequence[str]) -> Sequence[str]:
    return examples[:_EXAMPLES_MAX]
