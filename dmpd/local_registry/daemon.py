"""The process around the engines: one instance, one loop, a control socket, a watchdog, signals, exit code.

``run_rae`` is a real RAE, on asyncio's own loop (pyroute2 does not work on uvloop); ``run_simulated`` is many made-up
ones.
"""

import asyncio
import importlib
import importlib.util
import logging
import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from dmpd.local_registry import host
from dmpd.local_registry.device_control import DeviceControl
from dmpd.local_registry.engine import Engine
from dmpd.local_registry.machine import boot_id
from dmpd.local_registry.settings import LanSettings, LocalRegistrySettings
from dmpd.local_registry.simulate import TICK_S, SimulateOptions, engines
from dmpd.local_registry.source import LanSource
from dmpd.local_registry.sources import oui
from dmpd.local_registry.sources.describer import MacOf
from dmpd.local_registry.sources.dial import Dial
from dmpd.local_registry.sources.lan_control import LanControl
from dmpd.local_registry.sources.ssdp import SsdpSource
from dmpd.local_registry.sources.ssdp_ether import LanEther
from dmpd.local_registry.store import StoreTooNewError
from dmpd.runtime import exit_codes
from dmpd.runtime.flock import AlreadyRunningError, InstanceLock
from dmpd.runtime.health import HealthServer
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.mqtt import MqttClient
from dmpd.runtime.watchdog import Watchdog

PROGRAM: Final = "local-registry"
CONTROL_SOCKET: Final = "control.sock"
LOCK_FILE: Final = "lock"

_log = logging.getLogger(__name__)


def run_rae(settings: LocalRegistrySettings, lifecycle: Lifecycle) -> int:
    """Serve one RAE until told to stop; returns the exit code. Blocks."""
    return _process(Path(settings.state_dir), lambda: [_engine(settings)], lifecycle, tick_s=1.0, loop_factory=None)


def run_unenrolled(settings: LocalRegistrySettings, lifecycle: Lifecycle) -> int:
    """Do nothing, but say what is missing to whoever asks, until told to stop or to begin anew. Blocks."""
    return _process(Path(settings.state_dir), list, lifecycle, tick_s=1.0, loop_factory=None)


def run_simulated(options: SimulateOptions, lifecycle: Lifecycle) -> int:
    """Serve many simulated RAEs until told to stop; returns the exit code. Blocks."""
    factory = None
    if importlib.util.find_spec("uvloop") is not None:
        factory = importlib.import_module("uvloop").new_event_loop
    return _process(
        options.state_dir,
        lambda: engines(options, connect=MqttClient.connect),
        lifecycle,
        tick_s=TICK_S,
        loop_factory=factory,
    )


def _process(
    state_dir: Path,
    make: Callable[[], Sequence[Engine]],
    lifecycle: Lifecycle,
    *,
    tick_s: float,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> int:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            return runner.run(_serve(state_dir, make, lifecycle, tick_s=tick_s))
        except AlreadyRunningError:
            raise
        except Exception:  # whatever it is: the log has the trace, and the supervisor starts us anew
            _log.exception("ended by an error of ours")
            return exit_codes.INTERNAL


async def _serve(state_dir: Path, make: Callable[[], Sequence[Engine]], lifecycle: Lifecycle, *, tick_s: float) -> int:
    lock = InstanceLock(state_dir / LOCK_FILE)
    lifecycle.install_async(asyncio.get_running_loop())
    made = make()
    actions = {"/devices": lambda arguments: host.devices(made)}
    bind = f"unix:{state_dir / CONTROL_SOCKET}"
    health = HealthServer(bind, lifecycle, lambda: host.status(made), actions=actions)
    watchdog = Watchdog()
    health.start()
    watchdog.start()
    try:
        if made:
            await host.serve(made, lifecycle=lifecycle, watchdog=watchdog, tick_s=tick_s)
        else:
            await host.wait_for_enrolment(lifecycle, watchdog)
    except StoreTooNewError as error:
        _log.error("%s", error)
        return exit_codes.CONFIG
    finally:
        lifecycle.set_state("stopped")
        watchdog.stop()
        health.stop()
        lock.release()
    return exit_codes.OK


def _engine(settings: LocalRegistrySettings) -> Engine:
    lan = _lan(settings.lan)
    return Engine(
        settings,
        lan.sources,
        connect=MqttClient.connect,
        executor=ThreadPoolExecutor(1, thread_name_prefix="disk"),
        random=Random(os.urandom(16)).random,  # noqa: S311 - jitter
        new_session=lambda: str(uuid.uuid4()),
        boot_id=boot_id(),
        slots=asyncio.Semaphore(1),
        vendor_of=oui.load(Path(settings.lan.oui_file)).vendor_of,
        control=lan.control,
    )


class _Lan(NamedTuple):
    """What the configuration says of the LAN: how it is observed, and how things are done to its devices."""

    sources: list[LanSource]
    control: DeviceControl | None


def _lan(lan: LanSettings) -> _Lan:
    sources: list[LanSource] = []
    control: DeviceControl | None = None
    if lan.lease_file is not None:
        from dmpd.local_registry.sources.lease_socket import LeaseSocket  # noqa: PLC0415 - a simulation needs neither
        from dmpd.local_registry.sources.leases import LeaseSource  # noqa: PLC0415

        told = None if lan.lease_socket is None else LeaseSocket(Path(lan.lease_socket))
        sources.append(LeaseSource(Path(lan.lease_file), socket=told))
    elif lan.lease_socket is not None:
        _log.warning("lan.lease_socket is of no use without lan.lease_file")
    if lan.interface is not None:
        from dmpd.local_registry.sources.neighbours import NeighbourSource  # noqa: PLC0415 - pulls in pyroute2

        neighbours = NeighbourSource(lan.interface)
        sources.append(neighbours)
        dial = None
        if lan.ssdp:
            ether = LanEther(lan.interface)
            ssdp = _ssdp(ether, lan, neighbours.mac_of)
            sources.append(ssdp)
            dial = Dial(ssdp, ether.fetch)
        control = LanControl(lan.interface, dial)
    if not sources:
        _log.warning("no LAN source is configured (lan.interface, lan.lease_file): no device will be found")
    return _Lan(sources, control)


def _ssdp(ether: LanEther, lan: LanSettings, mac_of: MacOf) -> SsdpSource:
    return SsdpSource(
        ether,
        mac_of,
        search_interval_s=lan.ssdp_search_interval_s,
        descriptions=lan.ssdp_descriptions,
    )
