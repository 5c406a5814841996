"""``dmpd lab``: the whole platform on this machine.

Exit codes: 0 it ended as asked (with ``--once``: and everything held), 1 a step failed or something did not hold,
75 another lab runs already, 64 wrong usage; with ``--canary`` those of ``dmpd canary --once``.
"""

import argparse
import json
import logging
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType

from dmpd.cli.arguments import count, rate
from dmpd.cli.lab_wiring import LabJudge, make_observer
from dmpd.lab.canary import issue_certificates, run_canary
from dmpd.lab.demo import KILLS, Demo
from dmpd.lab.duts import control
from dmpd.lab.kill import kill
from dmpd.lab.lan import DUTS_MAX
from dmpd.lab.lan_parts import lan_of
from dmpd.lab.lan_tools import LanLabError, program
from dmpd.lab.mosquitto import DEMO_USER
from dmpd.lab.platform import Lab, LabInterruptedError, LabSize
from dmpd.lab.report import Report
from dmpd.lab.server import ServerError
from dmpd.lab.session import StopFlag, clean_dead_lab, end_running_lab, running_lab
from dmpd.lab.state import LabFolder, LabRunningError, LabStateError
from dmpd.lab.status import lab_status
from dmpd.lab.view import report_table, status_table
from dmpd.lab.watch import Watch
from dmpd.runtime import exit_codes

HELP: Final = "the whole platform on one machine, with simulated RAEs and a LAN"
_DUT_COMMANDS: Final = {
    "plug": "put a LAN device's cable in",
    "unplug": "pull a LAN device's cable",
    "sleep": "switch a LAN device off: it says goodbye and answers no more",
    "wake": "switch it on again",
    "swap-mac": "give a LAN device another MAC; it stays the same device",
    "swap-esn": "give a LAN device another ESN; it stays the same device",
    "replace": "put another device, never seen before, on the same cable",
}
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""What our own Kafka clients say goes to a file: on the screen it would tear the live view."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, default=None, help="folder of the lab (default: one under /tmp)")
    commands = parser.add_subparsers(dest="lab_command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start everything; ends on Ctrl-C")
    up.add_argument("--raes", type=count, default=None, help="simulated RAEs (default 5; with --lan none)")
    up.add_argument("--devices", type=count, default=None, help="devices on each (default 40); with --lan, on the LAN")
    up.add_argument("--rate", type=rate, default=20.0, help="changes per second over all of them (default 20)")
    up.add_argument("--seed", type=int, default=1, help="of the simulation (default 1)")
    up.add_argument("--duts", type=_duts, default=None, help="devices on a LAN of network namespaces (default 12)")
    lan = up.add_mutually_exclusive_group()
    lan.add_argument("--lan", action="store_true", help="the LAN alone, without simulated RAEs; needs root")
    lan.add_argument("--no-lan", action="store_true", help="no LAN of network namespaces, even as root")
    shown = up.add_mutually_exclusive_group()
    shown.add_argument("--watch", action="store_true", help="live view; k kills a random part, q ends")
    shown.add_argument("--once", action="store_true", help="run through all faults without a person, and judge")
    shown.add_argument("--canary", action="store_true", help="one run of the canary, with its report; then the end")
    up.add_argument("--clients", type=count, default=3000, help="with --canary: its crowd (default 3000)")
    up.add_argument("--ramp", choices=("step", "linear", "herd"), default="linear", help="with --canary: how it comes")
    status = commands.add_parser("status", help="what runs, and how it is")
    status.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser("env", help="how programs reach its servers, as lines for a shell: eval $(dmpd lab env)")
    part = commands.add_parser("kill", help="kill -9 one part; it is started again at once")
    part.add_argument("part", help="a part's name as status shows it, or worker")
    for name, meaning in _DUT_COMMANDS.items():
        dut = commands.add_parser(name, help=meaning)
        dut.add_argument("dut", help="d1, d2, …")
        if name == "swap-esn":
            dut.add_argument("esn", nargs="?", default=None, help="(default: one that no device of the lab had)")
    shell = commands.add_parser("sh", help="a shell, or a command, in the namespace of the router or of a device")
    shell.add_argument("place", help="router, d1, d2, …")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="(default: an interactive shell)")
    commands.add_parser("down", help="end the lab, or clean up behind a dead one")


def run(args: argparse.Namespace) -> int:
    folder = LabFolder(args.state.absolute() if args.state is not None else None)
    command = {"up": _up, "status": _status, "env": _env, "kill": _kill, "sh": _shell, "down": _down}
    try:
        return command.get(args.lab_command, _dut)(folder, args)
    except LabRunningError as error:
        print(error, file=sys.stderr)
        return exit_codes.BUSY
    except (LabStateError, ServerError, LanLabError) as error:
        print(f"dmpd lab: {error}", file=sys.stderr)
        return exit_codes.DIFFERENT


def _up(folder: LabFolder, args: argparse.Namespace) -> int:
    size = _size(args)
    stop = StopFlag()
    stop.install()
    started_s = time.monotonic()
    try:
        with running_lab(folder, size, dmpd=_program("dmpd"), say=_say, stop_requested=stop) as lab:
            logging.basicConfig(filename=folder.log / "lab.log", level=logging.INFO, format=_LOG_FORMAT, force=True)
            _say(f"{'everything is up':<42} {time.monotonic() - started_s:5.1f} s")
            if args.canary:
                return _canary(lab, args, stop)
            if args.once:
                report = _demo(lab, stop, started_s)
            else:
                lab.start_duts()
                (_watch if args.watch else _wait)(lab, stop)
    except LabInterruptedError:
        _say("ended before it was up" if not args.once else "ended before the verdict")
        return exit_codes.DIFFERENT if args.once else exit_codes.OK
    except ServerError:
        print(f"logs: {folder.log}", file=sys.stderr)
        raise
    if not args.once:
        return exit_codes.OK
    _say(report_table(report, total_s=time.monotonic() - started_s))
    print(report.json_line(), flush=True)
    return exit_codes.OK if report.held else exit_codes.DIFFERENT


def _canary(lab: Lab, args: argparse.Namespace, stop: StopFlag) -> int:
    issue_certificates(lab, args.clients)
    command = [_program("dmpd"), "canary", "--once", "--clients", str(args.clients), "--ramp", args.ramp]
    return run_canary(lab, command, stop_requested=stop)


def _demo(lab: Lab, stop: StopFlag, started_s: float) -> Report:
    observer = make_observer(lab)
    observer.start()
    try:
        judge = LabJudge(lab)
        return Demo(lab, observer, judge, say=_say, stop_requested=stop, started_s=started_s).run()
    finally:
        observer.stop()


def _watch(lab: Lab, stop: StopFlag) -> None:
    observer = make_observer(lab)
    observer.start()
    try:
        Watch(lab, observer, hints=_hints(lab), stop_requested=stop).run()
    finally:
        observer.stop()


def _wait(lab: Lab, stop: StopFlag) -> None:
    for hint in _hints(lab):
        _say(hint)
    _say("Ctrl-C ends it")
    while not stop():
        time.sleep(0.2)


def _hints(lab: Lab) -> list[str]:
    """What to try next, for copying; dmpctl finds the lab of its checkout by itself."""
    folder = lab.folder
    binary = Path(_program("dmpd")).parent
    if binary.is_relative_to(Path.cwd()):
        binary = binary.relative_to(Path.cwd())
    elsewhere = folder.root != LabFolder().root
    state = f" --state {folder.root}" if elsewhere else ""
    cable = ", unplug d1, plug d1, sleep d2, wake d2, swap-mac d3, swap-esn d3, sh d1" if lab.info.lan else ""
    return [
        *([f"export DMPD_CONFIG={folder.config}"] if elsewhere else []),
        f"{binary}/dmpctl devices          and: raes, watch, status, verify",
        f"{binary}/dmpd lab{state} kill {KILLS[0]}   and: status{cable}, down",
        f"{binary}/supervisorctl -c {folder.supervisor_config} status",
    ]


def _status(folder: LabFolder, args: argparse.Namespace) -> int:
    found = lab_status(folder)
    if args.json:
        print(json.dumps(found))
    elif not found["running"]:
        _say("no lab runs (dmpd lab up starts one)")
    else:
        _say(status_table(found))
    return exit_codes.OK if found["running"] else exit_codes.DIFFERENT


def _env(folder: LabFolder, _args: argparse.Namespace) -> int:
    info = folder.read_info()
    if info is None or not folder.is_locked():
        print("dmpd lab: no lab runs", file=sys.stderr)
        return exit_codes.DIFFERENT
    facts = {
        "KAFKA": f"127.0.0.1:{info.kafka_port}",
        "MQTT_HOST": "127.0.0.1",
        "MQTT_PORT": str(info.mosquitto_port),
        "MQTT_USER": DEMO_USER,
        "TLS": str(folder.tls),
    }
    for name, value in facts.items():
        print(f"export {name}={shlex.quote(value)}")
    return exit_codes.OK


def _kill(folder: LabFolder, args: argparse.Namespace) -> int:
    _require_running(folder)
    _say(f"killed {args.part} (pid {kill(folder, args.part)})")
    return exit_codes.OK


def _dut(folder: LabFolder, args: argparse.Namespace) -> int:
    _require_lan(folder)
    lan = lan_of(folder)
    dut = lan.dut(args.dut)
    if args.lab_command in ("plug", "unplug"):
        (lan.plug if args.lab_command == "plug" else lan.unplug)(dut.name)
        return exit_codes.OK
    found = control.ask(folder.duts_socket, args.lab_command, dut.name, esn=getattr(args, "esn", None))
    asleep = ", asleep" if found["asleep"] else ""
    _say(f"{dut.name}: MAC {found['mac']}, ESN {found['esn']}{asleep}")
    return exit_codes.OK


def _shell(folder: LabFolder, args: argparse.Namespace) -> int:
    """Becomes the command; its exit code is the answer."""
    _require_lan(folder)
    lan = lan_of(folder)
    namespace = lan.router_namespace if args.place == "router" else lan.dut(args.place).namespace
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not words:
        words = [os.environ.get("SHELL", "/bin/sh")]
        os.environ["debian_chroot"] = args.place  # noqa: SIM112 - the name that Debian's prompts show
    os.execv(program("ip"), ["ip", "netns", "exec", namespace, *words])  # noqa: S606 - no shell wanted


def _down(folder: LabFolder, args: argparse.Namespace) -> int:
    if end_running_lab(folder):
        return exit_codes.OK
    ended = clean_dead_lab(folder)
    if ended:
        _say(f"ended {ended} processes that a dead lab left behind")
    return exit_codes.OK


def _require_lan(folder: LabFolder) -> None:
    _require_running(folder)
    info = folder.read_info()
    if info is None or not info.lan:
        raise ServerError("this lab has no LAN (it needs root; dmpd lab up --lan starts one)")


def _require_running(folder: LabFolder) -> None:
    if not folder.is_locked():
        raise ServerError("no lab runs (dmpd lab up starts one)")


def _say(thing: RenderableType) -> None:
    Console(highlight=False, markup=False, soft_wrap=isinstance(thing, str)).print(thing)


def _program(name: str) -> str:
    """The console script beside the Python that runs us: the same dmpd, whatever PATH says."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServerError(f"{name} is not installed as a program (pip install -e .)")
    return found


def _size(args: argparse.Namespace) -> LabSize:
    """``--lan`` makes one LAN the whole lab; without it ``--devices`` are those of each simulated RAE."""
    if args.lan:
        duts = args.duts or (_duts(str(args.devices)) if args.devices is not None else LabSize().duts)
        return LabSize(raes=args.raes or 0, devices=LabSize().devices, rate=args.rate, seed=args.seed, duts=duts)
    duts = 0 if args.no_lan else args.duts or LabSize().duts
    raes, devices = args.raes or LabSize().raes, args.devices or LabSize().devices
    return LabSize(raes=raes, devices=devices, rate=args.rate, seed=args.seed, duts=duts)


def _duts(text: str) -> int:
    number = count(text)
    if number > DUTS_MAX:
        raise argparse.ArgumentTypeError(f"expected 1 to {DUTS_MAX} devices on the LAN")
    return number
