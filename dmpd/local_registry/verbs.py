"""What each verb does. Called by ``requests``, once per request, when its turn has come and it is on the disk."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from dmpd import __version__
from dmpd.local_registry.device_control import DeviceControl, DeviceControlError, Target
from dmpd.local_registry.request_rules import RefusedError
from dmpd.model.messages import Request
from dmpd.model.record import Attributes
from dmpd.model.requests import (
    AppArgs,
    AppLaunchArgs,
    Args,
    AttributesSetArgs,
    EpochRaiseArgs,
    ForgetArgs,
    LogLevelArgs,
)

PROBE_WAIT_S: Final = 12.0
"""The kernel needs 5 to 8 s to find out that a device it believed in is not there."""
PROBE_LOOK_S: Final = 0.05

_log = logging.getLogger(__name__)


class FailedError(Exception):
    """It was begun and did not succeed. The text is for the requester."""


class Rae(Protocol):
    """What the verbs need of the engine around them."""

    @property
    def device_count(self) -> int: ...
    def has_session(self, session: str) -> bool: ...
    def target(self, session: str) -> Target: ...
    def send_checkpoint(self, session: str) -> bool: ...
    def send_all_checkpoints(self) -> int | None: ...
    def set_attributes(self, session: str, values: Attributes, unset: tuple[str, ...]) -> None: ...
    def forget(self, session: str) -> bool: ...
    def probe(self, session: str) -> None: ...
    def seen_since(self, session: str, since_s: float) -> bool | None: ...
    def state(self, session: str) -> str: ...
    async def raise_epoch(self, refused: int, above: int) -> bool: ...


class Verbs:
    """Executes admitted requests. Holds no state of its own."""

    def __init__(self, rae: Rae, control: DeviceControl) -> None:
        self._rae = rae
        self._control = control
        self._actions: dict[str, Callable[[str, Any], Awaitable[object]]] = {
            "checkpoint": self._checkpoint,
            "probe": self._probe,
            "attributes.set": self._attributes_set,
            "wake": self._wake,
            "app.state": self._app_state,
            "app.launch": self._app_launch,
            "app.stop": self._app_stop,
            "forget": self._forget,
            "epoch.raise": self._epoch_raise,
            "checkpoint.all": self._checkpoint_all,
            "ping": self._ping,
            "log_level": self._log_level,
        }

    async def run(self, request: Request, args: Args) -> object:
        """Do it; returns the result for the response, anything that JSON can say.

        What is done in memory alone is done without a pause after it, so that the result and what it speaks of are
        committed together.

        Raises:
            RefusedError: It cannot be done here; nothing was.
            FailedError: It did not succeed.
        """
        action = self._actions.get(request.verb)
        if action is None:
            raise RefusedError(f"{request.verb} does not exist yet")
        if request.session != "rae" and not self._rae.has_session(request.session):
            raise RefusedError("this RAE has no such device session")
        try:
            return await action(request.session, args)
        except DeviceControlError as error:
            raise FailedError(str(error)) from error

    async def _checkpoint(self, session: str, _args: Args) -> object:
        if not self._rae.send_checkpoint(session):
            raise FailedError("nothing becomes durable in the cloud: checkpoints are held back")
        return {}

    async def _checkpoint_all(self, _session: str, _args: Args) -> object:
        sent = self._rae.send_all_checkpoints()
        if sent is None:
            raise FailedError("nothing becomes durable in the cloud: checkpoints are held back")
        return {"sessions": sent}

    async def _ping(self, _session: str, _args: Args) -> object:
        return {"version": __version__, "devices": self._rae.device_count}

    async def _log_level(self, _session: str, args: LogLevelArgs) -> object:
        root = logging.getLogger()
        was = logging.getLevelName(root.level).lower()
        root.setLevel(args.level.upper())
        _log.warning("log level %s, was %s, by request", args.level, was)
        return {"was": was}

    async def _epoch_raise(self, _session: str, args: EpochRaiseArgs) -> object:
        return {"raised": await self._rae.raise_epoch(args.refused, args.above)}

    async def _forget(self, _session: str, args: ForgetArgs) -> object:
        return {"held": self._rae.forget(args.session)}

    async def _attributes_set(self, session: str, args: AttributesSetArgs) -> object:
        self._rae.set_attributes(session, args.values, args.unset)
        return {}

    async def _probe(self, session: str, _args: Args) -> object:
        """Provoke a sign of life, and wait until there is one, or its lack is certain."""
        began_s = time.monotonic()
        self._rae.probe(session)
        seen: bool | None = None
        while seen is None and time.monotonic() - began_s < PROBE_WAIT_S:
            await asyncio.sleep(PROBE_LOOK_S)
            seen = self._rae.seen_since(session, began_s)
        return {"answered": bool(seen), "state": self._rae.state(session)}

    async def _wake(self, session: str, _args: Args) -> object:
        macs = self._rae.target(session).macs
        if not macs:
            raise FailedError("no MAC of this device is known")
        await self._control.wake(macs)
        return {"macs": list(macs)}

    async def _app_state(self, session: str, args: AppArgs) -> object:
        state = await self._control.app_state(self._rae.target(session), args.app)
        return {"app": state.name, "state": state.state, "stoppable": state.stoppable}

    async def _app_launch(self, session: str, args: AppLaunchArgs) -> object:
        await self._control.app_launch(self._rae.target(session), args.app, args.payload)
        return {"app": args.app, "state": "running"}

    async def _app_stop(self, session: str, args: AppArgs) -> object:
        ran = await self._control.app_stop(self._rae.target(session), args.app)
        return {"app": args.app, "state": "stopped", "ran": ran}
