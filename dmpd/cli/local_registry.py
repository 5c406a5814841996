"""``dmpd local-registry``: the edge daemon of one RAE, or with ``--simulate`` many made-up RAEs in one process.

HUP has it drain and begin anew with the changed configuration.

Exit codes: 0 drained after TERM, 64 wrong usage, 70 an error of ours, 78 the configuration or the store's version.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from dmpd.cli.arguments import count, rate
from dmpd.cli.config import RAE_CONFIG
from dmpd.local_registry.daemon import run_rae, run_simulated, run_unenrolled
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.local_registry.simulate import SimulateOptions, missing_certificates
from dmpd.model.principals import is_rae
from dmpd.runtime import daemon_process, exit_codes, log
from dmpd.runtime.config import load
from dmpd.runtime.flock import AlreadyRunningError
from dmpd.runtime.settings import LogSettings, MqttSettings

HELP: Final = "the edge daemon of a RAE: finds the devices of its LAN and reports them"
DEFAULT_CONFIG: Final = RAE_CONFIG

_PROGRAM: Final = "local-registry"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"configuration (default {DEFAULT_CONFIG})")
    group = parser.add_argument_group("simulation", "made-up RAEs in place of this one: demo, tests, load")
    group.add_argument("--simulate", type=count, metavar="N", help="how many RAEs")
    group.add_argument("--devices", type=count, default=40, metavar="M", help="devices on each (default 40)")
    group.add_argument("--seed", type=int, default=1, help="equal seeds give equal devices (default 1)")
    group.add_argument(
        "--rate", type=rate, default=20.0, metavar="CHANGES_PER_S", help="over all RAEs together (default 20)"
    )
    group.add_argument("--state-dir", type=Path, help="folder of the stores and of control.sock")
    group.add_argument("--certificates", type=Path, help="folder with ca.crt and {serial}.crt|.key")
    group.add_argument("--prefix", default="sim-", help="of the serials (default sim-)")
    group.add_argument("--mqtt-host", default="127.0.0.1", help="the broker (default 127.0.0.1)")
    group.add_argument("--mqtt-port", type=count, default=8883, help="its TLS port (default 8883)")
    group.add_argument("--checkpoint-interval-s", type=float, default=600.0, help="default 600")


def run(args: argparse.Namespace) -> int:
    try:
        return _simulate(args) if args.simulate is not None else _serve(args.config)
    except AlreadyRunningError as error:  # after a kill of supervisord the old one lives on: try again until it ends
        print(f"dmpd local-registry: {error}", file=sys.stderr)
        return exit_codes.INTERNAL


def _serve(config: Path) -> int:
    settings = load(config, LocalRegistrySettings)
    log.setup(settings.log, _PROGRAM)
    run = run_rae if settings.rae else run_unenrolled
    return daemon_process.serve(
        _PROGRAM,
        lambda lifecycle: run(settings, lifecycle),
        check_config=lambda: load(config, LocalRegistrySettings),
    )


def _simulate(args: argparse.Namespace) -> int:
    if args.state_dir is None or args.certificates is None:
        print("dmpd local-registry: --simulate needs --state-dir and --certificates", file=sys.stderr)
        return exit_codes.USAGE
    options = SimulateOptions(
        raes=args.simulate,
        devices=args.devices,
        seed=args.seed,
        rate_per_s=args.rate,
        state_dir=args.state_dir,
        certificates=args.certificates,
        mqtt=MqttSettings(host=args.mqtt_host, port=args.mqtt_port),
        prefix=args.prefix,
        checkpoint_interval_s=args.checkpoint_interval_s,
    )
    if not all(is_rae(serial) for serial in options.serials()):
        print(f"dmpd local-registry: --prefix {args.prefix!r} makes no serials of RAEs", file=sys.stderr)
        return exit_codes.USAGE
    missing = missing_certificates(options)
    if missing:
        print(f"dmpd local-registry: {missing[0]} and {len(missing) - 1} more files are missing", file=sys.stderr)
        return exit_codes.USAGE
    log.setup(LogSettings(), _PROGRAM)
    return daemon_process.serve(
        _PROGRAM, lambda lifecycle: run_simulated(options, lifecycle), check_config=options.serials
    )
