"""A Mosquitto with dynamic security, and parties that talk through it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmpd.runtime.mqtt import Message
from tests.support.services import MosquittoService, start_mosquitto, unavailable

PLUGIN = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)
WAIT_S = 20.0


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
        code = await asyncio.wait_for(self._ack(mid), WAIT_S)
        return 0 if code == 0x10 else code

    async def hears(self, topic, payload) -> bool:
        async with asyncio.timeout(WAIT_S):
            while (topic, payload) not in self.received:
                self._news.clear()
                await self._news.wait()
        return True

    async def ended(self) -> int:
        """Wait for the end of the connection; the broker's reason code."""
        await asyncio.wait_for(asyncio.shield(self.client.closed), WAIT_S)
        return self.client.close_reason_code

    def _ack(self, mid):
        return self._acks.setdefault(mid, asyncio.get_running_loop().create_future())

    def _on_message(self, message: Message):
        self.received.append((message.topic, message.payload))
        self._news.set()
        if message.qos and self._acking:
            self.client.ack(message)
