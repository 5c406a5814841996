"""The broker's own figures, as ``svc-canary`` reads them in ``$SYS``. One without them is no reason for anything."""

import asyncio
import contextlib
import logging
from typing import Final

from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.mqtt import Message, MqttClient
from dmpd.runtime.settings import MqttSettings

NAMES: Final = {
    "$SYS/broker/clients/connected": "clients",
    "$SYS/broker/subscriptions/count": "subscriptions",
    "$SYS/broker/retained messages/count": "retained",
    "$SYS/broker/publish/messages/dropped": "dropped",
    "$SYS/broker/heap/current": "heap_bytes",
}
PRINCIPAL: Final = "svc-canary"
_FIRST_S: Final = 5.0
_LOOK_S: Final = 0.1
_COUNTED: Final = ("subscriptions", "retained")

_log = logging.getLogger(__name__)


class BrokerWatch:
    """One connection, from ``start`` to ``stop``; ``figures`` are the newest."""

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._client: MqttClient | None = None
        self.figures: dict[str, int] = {}
        self.before: dict[str, int] = {}
        """The figures at ``start``, our own subscriptions added, which the broker had not counted yet."""

    async def start(self) -> None:
        """Connect and hear the figures of now; without them, say so in the log."""
        try:
            self._client = await MqttClient.connect(
                self._settings,
                client_id=PRINCIPAL,
                clean_start=True,
                session_expiry_s=0,
                will=None,
                on_message=self._heard,
                on_puback=lambda *_: None,
                receive_maximum=100,
            )
            await self._client.subscribe(list(NAMES), qos=0, retain_handling=0)
        except UnavailableError as error:
            _log.warning("the broker's own figures are not to be had: %s", error)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all(), _FIRST_S)
        self.before = dict(self.figures)
        if "subscriptions" in self.before:
            self.before["subscriptions"] += len(NAMES)

    async def settled(self, timeout_s: float) -> dict[str, int]:
        """The figures, once those of ``before`` are reached again or time is up: they come every few seconds."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while self._client is not None and loop.time() < deadline_s:
            if all(self.figures.get(name, 0) <= self.before.get(name, 0) for name in _COUNTED):
                break
            await asyncio.sleep(_LOOK_S)
        return dict(self.figures)

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.disconnect()

    async def _all(self) -> None:
        while len(self.figures) < len(NAMES):  # noqa: ASYNC110 - some seconds at most, once
            await asyncio.sleep(_LOOK_S)

    def _heard(self, message: Message) -> None:
        name = NAMES.get(message.topic)
        try:
            number = int(message.payload)
        except ValueError:
            return  # another broker's way of saying it
        if name is not None:
            self.figures[name] = number
