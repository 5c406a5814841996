"""Brings the whole platform up in its order, and down in the opposite one.

Servers first, then the database's tables and the topics, then cloud-registry and bridge, then the RAEs. Each step
waits for what it started; a step that fails says which part it was and shows the end of that part's log.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct, structs

from dmpd.lab import daemon_config, lan_parts, leftovers
from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.kafka import Kafka
from dmpd.lab.lan_parts import LanParts
from dmpd.lab.mosquitto import DEMO_USER, Mosquitto
from dmpd.lab.postgresql import PostgreSQL
from dmpd.lab.server import Server, ServerError, free_ports
from dmpd.lab.server_process import log_tail
from dmpd.lab.state import LabFolder, LabInfo, serial
from dmpd.lab.supervision import Supervisor
from dmpd.runtime import health

DATABASE: Final = "dmpd"
_POLL_S: Final = 0.05
_READY_TIMEOUT_S: Final = 60.0
_CRASHING_S: Final = 8.0
"""A part that did not even run for this long crashes at each start: waiting longer shows nothing new."""
_MIGRATE_TIMEOUT_S: Final = 60
_DOWN_TIMEOUT_S: Final = 120.0


class LabInterruptedError(Exception):
    """Somebody asked the lab to end while it was starting."""


class LabSize(Struct, frozen=True, kw_only=True):
    """How much is simulated: RAEs, devices on each, changes per second over all of them, and the seed."""

    raes: int = 5
    devices: int = 40
    rate: float = 20.0
    seed: int = 1
    duts: int = 12
    """Devices on a LAN of network namespaces, if this machine lets us; 0 = no LAN."""


class Lab:
    """One lab in ``folder``, whose lock the caller holds. ``up`` once, then ``down`` once; not thread-safe.

    ``stop_requested`` is asked while waiting, so that a signal ends a start at once; ``say`` gets each step's line.
    """

    def __init__(
        self,
        folder: LabFolder,
        size: LabSize,
        *,
        dmpd: str,
        say: Callable[[str], None],
        stop_requested: Callable[[], bool],
    ) -> None:
        self.folder = folder
        self.size = size
        self.supervisor = Supervisor(folder)
        self._dmpd = dmpd
        self._say = say
        self._stop_requested = stop_requested
        self._process: subprocess.Popen[bytes] | None = None
        self._lan: LanParts | None = None
        mosquitto_port, kafka_port, controller_port = free_ports(3)
        self.info = LabInfo(
            pid=os.getpid(),
            raes=size.raes,
            devices=size.devices,
            rate=size.rate,
            mosquitto_port=mosquitto_port,
            kafka_port=kafka_port,
        )
        self.authority: CertificateAuthority
        self.postgresql = PostgreSQL(folder.postgresql)
        self.kafka = Kafka(folder.kafka, port=kafka_port, controller_port=controller_port)

    def up(self) -> None:
        """Start everything and wait until it is ready. Blocks for 10 to 60 s.

        Raises:
            ServerError: A step failed; the text says which, with the tail of that part's log. Call ``down``.
            LabInterruptedError: ``stop_requested`` said so. Call ``down``.
        """
        left = leftovers.clean(self.folder)
        if left:
            self._say(f"ended {left} processes that a former lab left behind")
        reason = LanParts.unavailable_reason()
        if reason is None:
            LanParts(self.folder).down()
        self.folder.create()
        self.folder.write_info(self.info)
        self._make_lan(reason)
        self._start_servers()
        self._migrate()
        self._start_daemons()
        self._start_raes()
        self._remember(ready=True)

    def down(self) -> None:
        """End the parts in their order (RAEs, bridge, cloud-registry, servers), then supervisord.

        Blocks for the parts' drains, some seconds. What does not end by itself in time is killed.
        """
        self._remember(ready=False)
        process, self._process = self._process, None
        if process is not None:
            self.supervisor.shutdown()
            try:
                process.wait(_DOWN_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        leftovers.clean(self.folder)
        if self._lan is not None:
            self._lan.down()

    def start_part(self, part: str) -> None:
        """Enable the program file ``etc/supervisor/{part}.conf`` and remember its programs as parts of this lab."""
        self._remember(parts=[*self.info.parts, *self.supervisor.enable(part)])

    def wait_part(self, program: str, is_ready: Callable[[], bool], *, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Wait until a started part says that it is ready.

        Raises:
            ServerError: It is not in time, or has given up.
            LabInterruptedError: Somebody asked the lab to end.
        """
        deadline_s = time.monotonic() + timeout_s
        ran_s = time.monotonic()
        while not is_ready():
            if self._stop_requested():
                raise LabInterruptedError
            state = next((part.state for part in self.supervisor.states() if part.name == program), "UNKNOWN")
            if state == "RUNNING":
                ran_s = time.monotonic()
            given_up = state in ("FATAL", "EXITED") or time.monotonic() > ran_s + _CRASHING_S
            if given_up or time.monotonic() > deadline_s:
                raise ServerError(f"{program} is {state} and not ready\n{log_tail(self.folder.log / f'{program}.log')}")
            time.sleep(_POLL_S)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say how long a step took. A failure inside names the step."""
        started_s = time.monotonic()
        try:
            yield
        except ServerError as error:
            raise ServerError(f"{what}: {error}") from error
        self._say(f"{what:<42} {time.monotonic() - started_s:5.1f} s")

    def start_duts(self) -> None:
        """Switch the LAN's devices on, if there is a LAN. Does not wait for them. After ``up``."""
        if self._lan is not None:
            self.start_part(lan_parts.DUTS_PART)

    def _make_lan(self, unavailable: str | None) -> None:
        if not self.size.duts:
            return
        if unavailable is not None and not self.size.raes:
            raise ServerError(f"there can be no LAN here: {unavailable}")
        if unavailable is not None:
            self._say(f"no LAN of network namespaces, simulated RAEs alone: {unavailable}")
            return
        self._remember(duts=self.size.duts)
        with self.step(f"LAN of network namespaces, {self.size.duts} devices"):
            self._lan = LanParts(self.folder)
            self._lan.up()

    def _start_servers(self) -> None:
        with self.step("certificates"):
            self.authority = CertificateAuthority(self.folder.tls)
            mosquitto = Mosquitto(
                self.folder.mosquitto,
                port=self.info.mosquitto_port,
                authority=self.authority,
                more_addresses=[self._lan.broker_address] if self._lan is not None else [],
                users=[DEMO_USER],
            )
            self.authority.client(DEMO_USER)
        servers: list[Server] = [mosquitto, self.postgresql, self.kafka]
        with self.step("configuration of Mosquitto, PostgreSQL, Kafka"), ThreadPoolExecutor() as pool:
            for done in [pool.submit(server.prepare) for server in servers]:
                done.result()
        if self._stop_requested():
            raise LabInterruptedError
        with self.step("supervisord"):
            self._process = self.supervisor.start(environment=self._environment(servers), as_root=os.geteuid() == 0)
        for server in servers:
            self.start_part(f"lab-{server.name}")
        for server in servers:
            with self.step(server.name):
                self.wait_part(server.name, server.is_ready)

    def _environment(self, servers: list[Server]) -> dict[str, str]:
        """What the program files of ``etc/supervisor`` take from supervisord's environment."""
        found = {"DMPD": self._dmpd, "DMPD_CONFIG": str(self.folder.config), "DMPD_LOG": str(self.folder.log)}
        for server in servers:
            found[f"DMPD_LAB_{server.name.upper()}_COMMAND"] = shlex.join(server.command())
            found[f"DMPD_LAB_{server.name.upper()}_USER"] = server.user
        found["DMPD_LAB_SIMULATE_COMMAND"] = shlex.join(self._simulate_command())
        if self._lan is not None:
            found |= self._lan.environment(self._dmpd)
        return found

    def _simulate_command(self) -> list[str]:
        size = self.size
        command = [self._dmpd, "local-registry", "--simulate", str(size.raes), "--devices", str(size.devices)]
        command += ["--seed", str(size.seed), "--rate", f"{size.rate:g}", "--state-dir", str(self.folder.simulate)]
        return [*command, "--certificates", str(self.folder.tls), "--mqtt-port", str(self.info.mosquitto_port)]

    def _migrate(self) -> None:
        with self.step("database tables and Kafka topics"):
            conninfo = self.postgresql.create_database(DATABASE)
            daemon_config.write(
                self.folder,
                kafka=self.kafka,
                mosquitto_port=self.info.mosquitto_port,
                authority=self.authority,
                conninfo=conninfo,
            )
            self._run([self._dmpd, "migrate", "--config", str(self.folder.config)], self.folder.log / "migrate.log")

    def _run(self, command: list[str], log: Path) -> None:
        with log.open("ab") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=_MIGRATE_TIMEOUT_S, check=False
            )
        if done.returncode != 0:
            raise ServerError(f"{shlex.join(command)} ended with {done.returncode}\n{log_tail(log)}")

    def _start_daemons(self) -> None:
        probes = {
            "cloud-registry": daemon_config.cloud_registry_health(self.folder),
            "bridge": daemon_config.bridge_health(self.folder),
            "access": daemon_config.access_health(self.folder),
        }
        for part in probes:
            self.start_part(part)
        for part, bind in probes.items():
            with self.step(part):
                self.wait_part(part, lambda bind=bind: is_ready(bind))  # type: ignore[misc]

    def _start_raes(self) -> None:
        for number in range(1, self.size.raes + 1):
            self.authority.client(serial(number))
        if self.size.raes:
            with self.step(f"{self.size.raes} simulated RAEs, {self.size.devices} devices on each"):
                self.start_part("lab-simulate")
                self.wait_part("simulate", lambda: is_ready(daemon_config.simulate_health(self.folder)))
        if self._lan is not None:
            self._start_lan(self._lan)

    def _start_lan(self, lan: LanParts) -> None:
        if lan.remark is not None:
            self._say(lan.remark)
        with self.step(f"RAE {lan_parts.RAE} on the LAN"):
            lan.write_config(mosquitto_port=self.info.mosquitto_port, authority=self.authority)
            for part in lan_parts.PARTS:
                self.start_part(part)
            self.wait_part("local-registry-lan", lambda: is_ready(lan.health))
        self._remember(lan=True)

    def _remember(self, **changes: list[str] | bool | int) -> None:
        self.info = structs.replace(self.info, **changes)
        self.folder.write_info(self.info)


def is_ready(bind: str) -> bool:
    """Whether the daemon with this health socket answers ``/readyz`` with 200."""
    try:
        status, _ = health.fetch(bind, "/readyz")
    except OSError:
        return False
    return status == 200
