"""``dmpctl canary``: how the last runs of the canary went, and its switch.

``status`` is for monitors: the last verdict, and the alarm when no run ended for too long. ``last`` and ``show RUN``
tell everything of one run, ``compare A B`` puts two side by side; a run is named by the beginning of its id, ``last``,
or ``last~2`` for the second before it. ``disable`` keeps new runs from beginning and ends one that is under way.

Exit codes: 0 done (status, last, show: the verdict is pass), 1 the verdict is fail, or the run is not there, 2 several
runs begin with that, 3 degraded, 69 unknown, no run for too long, the canary is disabled, or no database, 64 wrong
usage, 78 the configuration or the database's schema is wrong.
"""

import argparse
import getpass
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType

from dmpd.canary import store
from dmpd.canary.report import Report
from dmpd.canary.schedule import alarm
from dmpd.canary.store import Run, State
from dmpd.cli import arguments, showing, tables
from dmpd.cli.canary_view import compare_view, report_view, verdict_text
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.cli.database_command import ask
from dmpd.cli.showing import NothingToShowError, View
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "runs of the canary: status, last, history, show, compare, disable, enable"
LIMIT: Final = 20
CODES: Final[Mapping[str, int]] = {
    "pass": exit_codes.OK,
    "fail": exit_codes.DIFFERENT,
    "degraded": exit_codes.FAILED,
}
"""Of a verdict; any other is no proof of anything."""
_LAST: Final = re.compile(r"last(?:~([0-9]{1,4}))?")
_ID: Final = re.compile(r"[0-9a-f-]{1,36}")
_COLUMNS: Final = (
    *("run", "started", "took", "by", "clients", "ramp", "got in", "sent", "lost", "wrong", "order", "late", "dup"),
    *("connect", "row", "control", "verdict", "reasons"),
)
_NUMBERS: Final = (
    "took",
    "clients",
    "got in",
    "sent",
    "lost",
    "wrong",
    "order",
    "late",
    "dup",
    "connect",
    "row",
    "control",
)


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add(actions, "status", "the last verdict, the switch, and the alarm; for monitors", shows=True)
    _add(actions, "last", "everything of the last run", shows=True)
    history = _add(actions, "history", "the last runs, newest first", shows=True)
    history.add_argument(
        "--limit", type=arguments.count, default=LIMIT, metavar="N", help=f"at most N (default {LIMIT})"
    )
    show = _add(actions, "show", "everything of one run", shows=True)
    show.add_argument("run", type=_name, help="the beginning of its id, last, or last~N")
    compare = _add(actions, "compare", "two runs side by side", shows=True)
    compare.add_argument("one", type=_name, metavar="A", help="the beginning of its id, last, or last~N")
    compare.add_argument("two", type=_name, metavar="B", help="likewise")
    disable = _add(actions, "disable", "no runs until enable; one under way ends", shows=False)
    disable.add_argument("why", type=arguments.printable, help="for those who wonder")
    _add(actions, "enable", "runs again", shows=False)


def run(args: argparse.Namespace) -> int:
    if args.action in ("disable", "enable"):
        return ask(args, lambda connection: _switch(connection, args))
    looks: dict[str, Callable[[Connection], View]] = {
        "status": lambda connection: _status(connection, load_cloud_config(args).canary.alarm_s),
        "last": lambda connection: _show(connection, "last"),
        "history": lambda connection: _history(connection, args.limit),
        "show": lambda connection: _show(connection, args.run),
        "compare": lambda connection: _compare(connection, args.one, args.two),
    }
    return showing.show(args, looks[args.action])


def _add(actions: Any, name: str, text: str, *, shows: bool) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    add_config_argument(one, lab=True)
    if shows:
        showing.add_arguments(one)
    return one


def _status(connection: Connection, alarm_s: float) -> View:
    state = store.read_state(connection)
    _, ended_age_s = store.ages_s(connection)
    ended = next((run for run in store.last_runs(connection, LIMIT) if run.ended_at is not None), None)
    raised = alarm(ended_age_s=ended_age_s, watched_s=float("inf"), alarm_s=alarm_s)
    if ended_age_s is None:
        raised = "no canary run ever ended"
    verdict = ended.verdict if ended is not None else "unknown"
    code = CODES.get(verdict, exit_codes.UNAVAILABLE)
    if raised is not None or not state.enabled:
        code = exit_codes.DIFFERENT if code == exit_codes.DIFFERENT else exit_codes.UNAVAILABLE
    found = {
        "verdict": verdict,
        "alarm": raised,
        "ended_age_s": ended_age_s,
        "enabled": state.enabled,
        "running": state.run,
        "last": None if ended is None else msgspec.to_builtins(ended),
    }
    return View(found, lambda: _status_shown(state, ended, ended_age_s, raised), code)


def _status_shown(state: State, ended: Run | None, age_s: float | None, raised: str | None) -> RenderableType:
    table = tables.table(("canary", ""))
    if ended is not None:
        table.add_row("last verdict", verdict_text(ended.verdict))
        table.add_row("", "; ".join(str(one["name"]) for one in ended.reasons or ()))
        table.add_row("run", f"{ended.run} of {ended.host}, ended {tables.duration(age_s)} ago")
    if state.run is not None:
        table.add_row("under way", f"{state.run} of {state.holder}")
    if not state.enabled:
        table.add_row(
            "disabled", f"by {state.changed_by}, {tables.instant(state.changed_at)}: {tables.shown(state.why)}"
        )
    table.add_row("alarm", raised or "none")
    return table


def _history(connection: Connection, limit: int) -> View:
    found = store.last_runs(connection, limit)
    return View(found, lambda: _history_shown(found), exit_codes.OK if found else exit_codes.DIFFERENT)


def _history_shown(found: Sequence[Run]) -> RenderableType:
    table = tables.table(_COLUMNS, right=_NUMBERS)
    for run in found:
        p99s = run.p99s or {}
        table.add_row(
            run.run[:8],
            tables.instant(run.started_at),
            tables.text(None if run.took_s is None else f"{run.took_s:.0f} s"),
            run.trigger,
            str(run.clients),
            run.ramp,
            *(tables.text(getattr(run, name)) for name in ("connected", "sent", "lost", "wrong", "reordered", "late")),
            tables.text(run.duplicates),
            *(_ms(p99s.get(name)) for name in ("connect", "row", "control_during")),
            verdict_text(run.verdict),
            ", ".join(str(one["name"]) for one in run.reasons or ()),
        )
    return Group(table, f"{len(found)} run{'' if len(found) == 1 else 's'}; connect, row and control are p99")


def _show(connection: Connection, name: str) -> View:
    report = _find(connection, name)
    return View(report, lambda: report_view(report), CODES.get(report.verdict, exit_codes.UNAVAILABLE))


def _compare(connection: Connection, one: str, two: str) -> View:
    first, second = _find(connection, one), _find(connection, two)
    return View([first, second], lambda: compare_view(first, second))


def _find(connection: Connection, name: str) -> Report:
    """Raises ``NothingToShowError``."""
    asked = _LAST.fullmatch(name)
    if asked is not None:
        back = int(asked[1] or 0)
        runs = [run.run for run in store.last_runs(connection, back + LIMIT) if run.took_s is not None]
        if len(runs) <= back:
            raise NothingToShowError(f"{name}: {len(runs) or 'no'} runs have a report", exit_codes.DIFFERENT)
        name = runs[back]
    found = store.find_report(connection, name)
    if len(found) > 1:
        raise NothingToShowError(f"several runs begin with {name}: name more of it", exit_codes.AMBIGUOUS)
    if not found:
        raise NothingToShowError(f"no run begins with {name} (dmpctl canary history)", exit_codes.DIFFERENT)
    run, report = found[0]
    if report is None:
        raise NothingToShowError(f"run {run} has no report: it is under way, or its runner died", exit_codes.DIFFERENT)
    return report


def _switch(connection: Connection, args: argparse.Namespace) -> int:
    who = f"{getpass.getuser()}@{platform.node()}"
    enabled = args.action == "enable"
    store.set_enabled(connection, enabled=enabled, who=who, why="" if enabled else args.why)
    state = store.read_state(connection)
    if state.run is not None and not enabled:
        print(f"run {state.run} of {state.holder} ends within seconds", file=sys.stderr)
    print(f"canary {'enabled' if enabled else 'disabled'} by {who}, {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}")
    return exit_codes.OK


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1000:,.0f} ms"


def _name(text: str) -> str:
    if not (_LAST.fullmatch(text) or _ID.fullmatch(text)):
        raise argparse.ArgumentTypeError(f"expected the beginning of a run's id, last or last~N, got {text!r}")
    return text
