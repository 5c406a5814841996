"""What ``--watch`` shows: one screen from one observation. Pure but for the terminal it is drawn on."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dmpd.lab.observation import LanDevice, Observation, percentile
from dmpd.lab.report import Report
from dmpd.lab.supervision import PartState

_PARTS_IN_A_ROW = 4
_STATES = ("online", "standby", "asleep", "offline", "flapping", "unknown")
_LAN_DEVICES_MAX = 12
_STATE_STYLES = {"online": "green", "offline": "red", "asleep": "blue", "standby": "blue"}
_STYLES = {"RUNNING": "green", "STARTING": "yellow", "BACKOFF": "yellow", "STOPPED": "red", "EXITED": "red"}


def count_line(seen: Observation) -> str:
    """``committed 1,204 · in Kafka 1,204 · in database 1,204 · lost 0``; a dash for who does not answer."""
    committed = seen.edge.committed if seen.edge is not None else None
    revs = seen.database.revs if seen.database is not None else None
    counts = f"committed {_number(committed)} · in Kafka {_number(seen.in_kafka)} · in database {_number(revs)}"
    return f"{counts} · lost {_number(seen.lost)}"


def delay_line(delays_ms: Sequence[float]) -> str:
    middle, high = percentile(delays_ms, 0.5), percentile(delays_ms, 0.99)
    if middle is None or high is None:
        return "change → row: no rows in the last minute"
    return f"change → row: p50 {middle:.0f} ms · p99 {high:.0f} ms · {len(delays_ms)} rows in the last minute"


def screen(
    seen: Observation, parts: Sequence[PartState], delays_ms: Sequence[float], *, message: str, hints: Sequence[str]
) -> RenderableType:
    """The whole screen."""
    counts = Text(count_line(seen), style="bold green" if seen.lost == 0 else "bold red")
    return Group(
        Panel(Group(counts, delay_line(delays_ms)), title="dmpd lab", title_align="left"),
        _devices(seen),
        *([_lan(seen.lan)] if seen.lan else []),
        _queues(seen),
        _newest(seen),
        Text("parts", style="italic"),
        _parts(parts),
        Text(message, style="yellow"),
        Text("k kill -9 a random part · q end"),
        *(Text(hint, style="dim") for hint in hints),
    )


def report_table(report: Report, *, total_s: float) -> RenderableType:
    """What the demo measured, and what did not hold."""
    table = Table(title="timings", title_justify="left")
    table.add_column("what")
    table.add_column("seconds", justify="right")
    for what, seconds in report.timings:
        table.add_row(what, f"{seconds:.1f}")
    table.add_row("everything, from start to all down", f"{total_s:.1f}")
    failures = [Text(f"did not hold: {failure}", style="bold red") for failure in report.failures]
    return Group(table, *failures, Text("everything held", style="bold green") if report.held else Text(""))


def status_table(status: Mapping[str, Any]) -> RenderableType:
    """``dmpd lab status``: the parts, and what each daemon says of itself in a word."""
    table = Table(title=f"dmpd lab, pid {status['pid']}", title_justify="left")
    for column in ("part", "state", "pid", "up s", "health"):
        table.add_column(column)
    for part in status["parts"]:
        said = status["health"].get(part["name"])
        word = "" if said is None else str(said.get("state", "no answer"))
        style = _STYLES.get(part["state"], "red")
        table.add_row(part["name"], Text(part["state"], style=style), str(part["pid"] or "-"), str(part["up_s"]), word)
    return table


def _devices(seen: Observation) -> Table:
    table = _table("devices in the database", "all", *_STATES)
    if seen.database is None:
        table.add_row("-", *("-" for _ in _STATES))
    else:
        table.add_row(str(seen.database.rows), *(str(seen.database.by_state.get(state, 0)) for state in _STATES))
    return table


def _lan(devices: Sequence[LanDevice]) -> Table:
    table = _table("on the LAN", "device", "IP", "MAC", "vendor", "ESN", "state")
    for one in devices[:_LAN_DEVICES_MAX]:
        state = Text(one.state, style=_STATE_STYLES.get(one.state, "yellow"))
        words = (one.ip or "-", one.mac or "-", (one.vendor or "-")[:24], one.esn or "-")
        table.add_row(Text(one.hostname), *map(Text, words), state)
    if len(devices) > _LAN_DEVICES_MAX:
        table.add_row(f"and {len(devices) - _LAN_DEVICES_MAX} more")
    return table


def _queues(seen: Observation) -> Table:
    table = _table("waiting", "outbox rows", "MQTT in flight", "Kafka lag", "ring bytes", "RAEs connected")
    edge = seen.edge
    table.add_row(
        _number(edge.outbox_rows if edge is not None else None),
        _number(seen.in_flight),
        _number(seen.lag),
        _number(seen.ring_bytes),
        f"{edge.connected} of {edge.raes}" if edge is not None else "-",
    )
    return table


def _parts(parts: Sequence[PartState]) -> Table:
    """All parts, some in a row: their number must not decide how wide the terminal has to be."""
    table = Table.grid(padding=(0, 3))
    for _ in range(_PARTS_IN_A_ROW):
        table.add_column(no_wrap=True)
    cells = [
        Text.assemble(f"{part.name} ", (f"{part.state} {part.up_s} s", _STYLES.get(part.state, "red")))
        for part in parts
    ]
    for first in range(0, len(cells), _PARTS_IN_A_ROW):
        table.add_row(*cells[first : first + _PARTS_IN_A_ROW])
    return table


def _newest(seen: Observation) -> Table:
    table = _table("newest changes", "at", "RAE", "device session", "what")
    for change in reversed(seen.newest):
        table.add_row(change.at[11:23], change.rae, change.session[:8], Text(change.what[:60]))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
