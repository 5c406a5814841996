"""A Mosquitto with dynamic security, and parties that talk through it."""

import asyncio
import contextlib
import json
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from dmpd.access import store
from dmpd.access.store import Wish
from dmpd.cloud_registry import migrate
from dmpd.model.grants import Grant
from dmpd.runtime import health
from dmpd.runtime.database import Connection, connect
from dmpd.runtime.mqtt import Message, MqttClient, MqttUnreachableError
from dmpd.runtime.settings import DatabaseSettings
from tests.support.grants import S1
from tests.support.platform import BIN, until
from tests.support.services import (
    MosquittoService,
    PostgreSQLService,
    public_folder,
    start_mosquitto,
    start_postgres,
    unavailable,
)

PLUGIN = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)
WAIT_S = 60.0


@contextmanager
def start_dynsec(folder: Path, **lines: str) -> Iterator[MosquittoService]:
    """A broker as the lab's, with the plugin and without any rules of its own."""
    if PLUGIN is None:
        unavailable("mosquitto_dynamic_security.so is not installed")
    rules_file = folder / "mosquitto" / "dynsec.json"
    with start_mosquitto(folder, plugin=str(PLUGIN), plugin_opt_config_file=str(rules_file), **lines) as service:
        yield service


class Party:
    """One principal: what it received, and the broker's answer to each of its publishes."""

    def __init__(self, name, connect, settings):
        self.name = name
        self.received: list[tuple[str, bytes]] = []
        self._connect = connect
        self._settings = settings
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._news = asyncio.Event()
        self._acking = True
        self.client: Any = None
        self.on_hear: Callable[[str], object] = lambda topic: None
        self.on_message: Callable[[str, bytes], object] = lambda topic, payload: None

    async def connect(self, *, clean_start=True, session_expiry_s=0, acking=True):
        self._acking = acking
        self.client = await self._connect(
            self._settings,
            client_id=self.name,
            clean_start=clean_start,
            session_expiry_s=session_expiry_s,
            will=None,
            on_message=self._on_message,
            on_puback=lambda mid, code: self._ack(mid).set_result(code),
            receive_maximum=1000,
        )
        return self

    async def subscribe(self, *filters):
        return [code for one in filters for code in await self.client.subscribe([one])]

    async def publish(self, topic, payload=b"x") -> int:
        """The reason code of the PUBACK; 0 also for one without a subscriber."""
        mid = self.client.publish(topic, payload, qos=1)
        ack = self._ack(mid)
        await asyncio.wait((ack, self.client.closed), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if not ack.done():
            raise MqttUnreachableError("closed" if self.client.closed.done() else "no PUBACK")
        code = ack.result()
        return 0 if code == 0x10 else code

    async def hears(self, topic, payload) -> bool:
        async with asyncio.timeout(WAIT_S):
            while (topic, payload) not in self.received:
                self._news.clear()
                await self._news.wait()
        return True

    async def gone(self) -> None:
        """End the connection, if there is one."""
        if self.client is not None:
            await self.client.disconnect()
            self.client.abort()

    async def ended(self) -> int:
        """Wait for the end of the connection; the broker's reason code."""
        await asyncio.wait_for(asyncio.shield(self.client.closed), WAIT_S)
        return self.client.close_reason_code

    def _ack(self, mid):
        return self._acks.setdefault(mid, asyncio.get_running_loop().create_future())

    def _on_message(self, message: Message):
        self.received.append((message.topic, message.payload))
        self.on_hear(message.topic)
        self.on_message(message.topic, message.payload)
        self._news.set()
        if message.qos and self._acking:
            self.client.ack(message)


class AccessDaemon:
    """``dmpd access`` as a process of its own, one at a time, between the given broker and database."""

    def __init__(self, folder: Path, broker: MosquittoService, database: DatabaseSettings, **access: object) -> None:
        self.bind = f"unix:{folder / 'access.sock'}"
        self.config = folder / "dmpd.yaml"
        self.log = folder / "access.log"
        ours = broker.settings("svc-access")
        mqtt = {"port": broker.port, "ca_file": ours.ca_file}
        own = {"health_bind": self.bind, "cert_file": ours.cert_file, "key_file": ours.key_file}
        sections = {"mqtt": mqtt, "database": {"conninfo": database.conninfo}, "access": own | access}
        self.config.write_text(yaml.safe_dump(sections))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(BIN / "dmpd"), "access", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def status(self) -> dict[str, Any]:
        """What it says of itself; empty while nobody answers."""
        try:
            return json.loads(health.fetch(self.bind, "/status")[1])
        except OSError:
            return {}

    def is_done(self, *, rules: int | None = None) -> bool:
        """It is ready, and the broker holds what it should (so many rules)."""
        said = self.status()
        return said.get("state") == "ready" and said["problem"] is None and rules in (None, said["rules"])

    def metric(self, name: str) -> float:
        """One without labels."""
        said = health.fetch(self.bind, "/metrics")[1].decode()
        return float(next(line.split()[1] for line in said.splitlines() if line.startswith(f"{name} ")))

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait(10)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int | None:
        """TERM; the exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            return process.wait(20)
        finally:
            process.kill()


class AccessRig:
    """Broker, database with its tables, and the daemon, for one test."""

    def __init__(self, broker: MosquittoService, database: DatabaseSettings, daemon: AccessDaemon) -> None:
        self.broker = broker
        self.database = database
        self.daemon = daemon

    def party(self, name: str) -> "Party":
        return Party(name, MqttClient.connect, self.broker.settings(name))

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        with contextlib.closing(connect(self.database, application="test")) as found:
            found.autocommit = True
            yield found

    def grant(
        self,
        user: str,
        *,
        rae: str = "R1",
        session: str | None = S1,
        level: Any = "read",
        s: float = 600,
        starts_in_s: float | None = None,
    ):
        """One, of so many seconds from its start."""
        with self.connection() as found:
            wish = Wish(
                user=user,
                rae=rae,
                session=session,
                level=level,
                lasts=timedelta(seconds=s),
                starts_at=None if starts_in_s is None else datetime.now(UTC) + timedelta(seconds=starts_in_s),
                by="op-test",
                why="test",
            )
            return store.grant(found, wish, hours_max=720)

    def revoke(self, grant: str) -> Grant:
        with self.connection() as found:
            return store.revoke(found, grant, by="op-test")

    def fill(self, count: int, users: int, *, session: Callable[[int], str] = lambda n: str(uuid.UUID(int=n))) -> None:
        """So many grants of two hours at once, by one statement: each of a session of its own."""
        now = datetime.now(UTC)
        rows = [
            (
                f"f{number:09x}",
                f"u-fill-{number % users:04}",
                f"RAE-{number % 40:02}",
                session(number),
                ("read", "command")[number % 2],
                now,
                now + timedelta(hours=2),
                now,
                "op-test",
                "fill",
                False,
            )
            for number in range(count)
        ]
        with self.connection() as found, found.transaction(), found.cursor() as cursor:
            cursor.execute("UPDATE access_change SET version = version + 1")
            cursor.executemany(
                "INSERT INTO access_grant (id, user_name, rae, session, level, starts_at, ends_at, created_at,"
                " granted_by, why, queued) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                rows,
            )

    def empty_broker(self) -> None:
        """It dies, and comes back without any rule. From a thread that stays: with it the broker would end."""
        self.broker.process.kill()
        (self.broker.folder / "dynsec.json").unlink(missing_ok=True)
        self.broker.process.start()

    def events(self, code: str) -> list[tuple[Any, ...]]:
        """``(grant, at, detail)`` of that code, oldest first."""
        with self.connection() as found:
            return found.execute(
                "SELECT grant_id, at, detail FROM access_event WHERE code = %s ORDER BY at, id", (code,)
            ).fetchall()


@contextmanager
def access_rig(
    folder: Path, database: DatabaseSettings, *, start: bool = True, **access: object
) -> Iterator[AccessRig]:
    """A broker of its own, tables in ``database``, and the daemon at work."""
    with start_dynsec(folder) as broker:
        with contextlib.closing(connect(database, application="test")) as connection:
            connection.autocommit = True
            migrate.migrate(connection)
        daemon = AccessDaemon(folder, broker, database, **access)
        rig = AccessRig(broker, database, daemon)
        try:
            if start:
                daemon.start()
                until(
                    daemon.is_done,
                    "access is ready",
                    said=lambda: f"{daemon.status()}\n{daemon.log.read_text()[-2000:]}",
                )
            yield rig
        finally:
            daemon.stop()


@contextmanager
def own_rig() -> "Iterator[tuple[AccessRig, PostgreSQLService]]":
    """Broker, database server and daemon of this test alone, to be harmed."""
    with ExitStack() as stack:
        folder = stack.enter_context(public_folder())
        server = stack.enter_context(start_postgres(folder))
        database = stack.enter_context(server.database())
        yield stack.enter_context(access_rig(folder, database)), server
