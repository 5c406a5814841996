"""Many simulated RAEs in one process: each with a store, a certificate and a connection of its own. Demo and load.

From the store on everything is the real thing; only the LAN is made up. They share one event loop, one clock and a few
threads for the disk, so that hundreds fit into one process.
"""

import asyncio
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from dmpd.local_registry.engine import Engine
from dmpd.local_registry.machine import boot_id
from dmpd.local_registry.memory_control import MemoryControl
from dmpd.local_registry.settings import LocalRegistrySettings, PresenceSettings
from dmpd.local_registry.sources.simulated import SimulatedLan
from dmpd.local_registry.uplink import Connect
from dmpd.runtime.settings import MqttSettings

DISK_THREADS: Final = 4
CONNECTS_AT_ONCE: Final = 50
"""Mosquitto's listen backlog is 100: more SYNs at once and some wait a second."""
TICK_S: Final = 2.0

PRESENCE: Final = PresenceSettings(
    grace_s=2.0, probe_interval_s=300.0, probe_interval_max_s=900.0, leave_after_s=120.0, silent_s=60.0
)
"""Simulated devices are gone for 3 to 15 s, and one that made room for another leaves after two minutes."""


class SimulateOptions(Struct, frozen=True, kw_only=True):
    """What to simulate."""

    raes: int
    devices: int
    seed: int
    rate_per_s: float
    """Changes per second over all RAEs together."""
    state_dir: Path
    certificates: Path
    """Folder with ``ca.crt`` and ``{serial}.crt|.key`` for each RAE."""
    mqtt: MqttSettings = MqttSettings()
    prefix: str = "sim-"
    checkpoint_interval_s: float = 600.0

    def serials(self) -> list[str]:
        return [f"{self.prefix}{number:04d}" for number in range(1, self.raes + 1)]


def missing_certificates(options: SimulateOptions) -> list[Path]:
    """Files that the simulation needs and that are not there."""
    names = ["ca.crt", *(f"{serial}{suffix}" for serial in options.serials() for suffix in (".crt", ".key"))]
    return [path for name in names if not (path := options.certificates / name).is_file()]


def engines(options: SimulateOptions, *, connect: Connect) -> list[Engine]:
    """Wire all RAEs; call on the running loop."""
    executor = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
    slots = asyncio.Semaphore(CONNECTS_AT_ONCE)
    rate_per_s = options.rate_per_s / options.raes
    random = Random(os.urandom(16))  # noqa: S311 - jitter
    boot = boot_id()
    return [
        Engine(
            _settings(options, serial),
            [SimulatedLan(devices=options.devices, rate_per_s=rate_per_s, seed=f"{options.seed} {serial}")],
            connect=connect,
            executor=executor,
            random=random.random,
            new_session=lambda: str(uuid.uuid4()),
            boot_id=boot,
            slots=slots,
            control=MemoryControl(),
        )
        for serial in options.serials()
    ]


def _settings(options: SimulateOptions, serial: str) -> LocalRegistrySettings:
    folder = options.certificates
    mqtt = replace(
        options.mqtt,
        ca_file=str(folder / "ca.crt"),
        cert_file=str(folder / f"{serial}.crt"),
        key_file=str(folder / f"{serial}.key"),
    )
    return LocalRegistrySettings(
        rae=serial,
        state_dir=str(options.state_dir / serial),
        mqtt=mqtt,
        presence=PRESENCE,
        checkpoint_interval_s=options.checkpoint_interval_s,
    )
