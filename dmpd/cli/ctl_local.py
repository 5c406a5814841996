"""``dmpctl local``: what the Local Registry of this router is doing, uplink or not. Root and the group dmpd may ask.

``status`` says its state and why, ``devices`` lists what it sees on the LAN, ``reload`` has it begin anew with its
changed configuration, ``drain`` ends it in order (as does supervisorctl stop), ``setup-dnsmasq`` has dnsmasq tell it
of leases at once.

Exit codes: 0 done, and for status: it is ready; 1 status: it is not ready, devices: there is none, reload or drain: not
in time, setup-dnsmasq: there was nothing to undo; 64 wrong usage, 69 no daemon answers, 78 the configuration is wrong,
or dnsmasq does not accept the change.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from dmpd.cli import ctl_dnsmasq, ctl_drain, daemons, plain, this_rae
from dmpd.cli.arguments import seconds
from dmpd.runtime import exit_codes

HELP: Final = "the Local Registry of this router"
_COLUMNS: Final = ("STATE", "NAME", "ESN", "MAC", "IP", "VENDOR", "SESSION")
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for name, run_verb, about in (
        ("status", _status, "its state, and why it is not ready"),
        ("devices", _devices, "the devices that it knows"),
        ("reload", _reload, "have it begin anew with its changed configuration, and wait for that"),
        ("drain", _drain, "end it in order, and wait for its end"),
    ):
        verb = verbs.add_parser(name, help=about)
        this_rae.add_arguments(verb)
        verb.set_defaults(run_verb=run_verb)
        if name != "reload":
            verb.add_argument("--json", action="store_true", help="for programs")
        if name in ("reload", "drain"):
            verb.add_argument("--timeout", type=seconds, default=60.0, metavar="S", help="to wait (default 60 s)")
    verb = verbs.add_parser("setup-dnsmasq", help="have dnsmasq tell of leases at once; --undo takes it back")
    ctl_dnsmasq.configure(verb)
    verb.set_defaults(run_verb=ctl_dnsmasq.run)


def run(args: argparse.Namespace) -> int:
    code: int = args.run_verb(args)
    return code


def _status(args: argparse.Namespace) -> int:
    found = this_rae.status(this_rae.bind(args))
    if args.json:
        plain.print_json(found)
    else:
        plain.print_columns(_facts(found))
    return exit_codes.OK if found.get("state") == "ready" else exit_codes.DIFFERENT


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("RAE", found.get("rae") or "not enrolled yet"), ("state", this_rae.state_line(found))]
    if "devices" in found:
        states = found["devices"]
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        facts += [
            ("uplink", "connected" if found["connected"] else "not connected"),
            ("outbox", _outbox(found)),
            ("devices", f"{sum(states.values())}" + (f": {counts}" if counts else "")),
            ("committed", f"{found['committed']} changes, epoch {found['epoch']}"),
            ("certificate", _certificate(found.get("certificate_days_left"))),
        ]
    facts += [("trouble", sentence) for sentence in found.get("lan_troubles", ())]
    return facts


def _outbox(found: Mapping[str, Any]) -> str:
    rows = found["outbox_rows"]
    if not rows:
        return "empty"
    return (
        f"{rows} rows wait, {found['outbox_bytes'] / 1024:.1f} KiB, the oldest for {_duration(found['outbox_age_s'])}"
    )


def _duration(value_s: float) -> str:
    for unit_s, name in _UNITS:
        if value_s >= 2 * unit_s:
            return f"{value_s / unit_s:.0f} {name}"
    return f"{value_s:.0f} s"


def _certificate(days_left: int | None) -> str:
    if days_left is None:
        return "none that can be read"
    return f"ends in {days_left} days" if days_left >= 0 else f"ended {-days_left} days ago"


def _devices(args: argparse.Namespace) -> int:
    at = this_rae.bind(args)
    this_rae.status(at)  # for its hint when nobody answers
    found = daemons.order(at, "/devices")["devices"]
    if args.json:
        plain.print_json(found)
    elif found:
        plain.print_columns([_COLUMNS, *(_row(one) for one in found)])
    if not args.json:
        print(f"{len(found)} devices")
    return exit_codes.OK if found else exit_codes.DIFFERENT


def _row(device: Mapping[str, Any]) -> tuple[object, ...]:
    record = device["record"]
    first: Mapping[str, Any] = next(iter(record.get("interfaces", ())), {})
    return (
        record.get("state", "unknown"),
        record.get("name") or first.get("hostname"),
        record.get("esn"),
        first.get("mac"),
        first.get("ip4"),
        first.get("oui_vendor") or first.get("vendor_class"),
        device["session"],
    )


def _reload(args: argparse.Namespace) -> int:
    at = this_rae.bind(args)
    this_rae.status(at)
    try:
        before = this_rae.reload(at)
    except daemons.RefusedError as error:
        print(f"{error}\ndmpctl local reload: it goes on with what it has", file=sys.stderr)
        return exit_codes.CONFIG
    found = this_rae.wait_begun(at, started_at=before or "", timeout_s=args.timeout)
    if found is None:
        print(f"dmpctl local reload: it has not begun anew within {args.timeout:g} s; see its log", file=sys.stderr)
        return exit_codes.DIFFERENT
    print(f"it has begun anew; {this_rae.state_line(found)}")
    return exit_codes.OK


def _drain(args: argparse.Namespace) -> int:
    at = this_rae.bind(args)
    this_rae.status(at)
    return ctl_drain.drain(at, None, timeout_s=args.timeout, as_json=args.json, again=this_rae.START_HINT)
