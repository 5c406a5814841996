"""Mosquitto's dynamic security plugin as a ``RuleBroker``: one message at a time, of one command or a few.

The plugin writes its whole file at each command, in the broker's only thread, and serves nobody between the commands of
one message: how many go together is for the caller to bound.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dmpd.access import dynsec_rules
from dmpd.access.broker import BrokerGoneError, BrokerRefusedError, Change, DropUser, Held, PutBase, PutUser
from dmpd.model.grants import Rule
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.mqtt import Message, MqttClient
from dmpd.runtime.settings import MqttSettings

PRINCIPAL: Final = "svc-access"
_CONTROL: Final = "$CONTROL/dynamic-security/v1"
_RESPONSE: Final = "$CONTROL/dynamic-security/v1/response"
_PAGE: Final = 50
"""Roles and clients in one answer: some 40 KB, a millisecond or two of the broker's time."""
_REFUSED: Final = 0x80

_log = logging.getLogger(__name__)


async def connect(settings: MqttSettings, *, answer_timeout_s: float) -> "DynsecBroker":
    """Connect as ``svc-access``. Takes at most about ``connect_timeout_s`` twice.

    Raises:
        UnavailableError: Nobody answers, or we are refused; says why.
    """
    broker = DynsecBroker(answer_timeout_s=answer_timeout_s)
    client = await MqttClient.connect(
        settings,
        client_id=PRINCIPAL,
        clean_start=True,
        session_expiry_s=0,
        will=None,
        on_message=broker.on_message,
        on_puback=broker.on_puback,
        receive_maximum=100,
    )
    broker.use(client)
    try:
        async with asyncio.timeout(answer_timeout_s):
            [code] = await client.subscribe([_RESPONSE], qos=0)
    except TimeoutError as error:
        client.abort()
        raise BrokerGoneError(f"no answer to SUBSCRIBE within {answer_timeout_s:g} s") from error
    if code >= _REFUSED:
        client.abort()
        raise UnavailableError(f"the broker refuses {PRINCIPAL} {_RESPONSE} (0x{code:02x}): see etc/mosquitto/acl")
    return broker


class DynsecBroker:
    """One connection; see ``broker.RuleBroker``. Made by ``connect``."""

    def __init__(self, *, answer_timeout_s: float) -> None:
        self._answer_timeout_s = answer_timeout_s
        self._client: MqttClient
        self._numbers = itertools.count(1)
        self._asked = ""
        self._mid = 0
        self._answer: asyncio.Future[list[dict[str, Any]]] | None = None
        self._expected = 0

    @property
    def closed(self) -> asyncio.Future[str]:
        return self._client.closed

    @property
    def close_reason_code(self) -> int:
        return self._client.close_reason_code

    def use(self, client: MqttClient) -> None:
        """The connection, which calls ``on_message`` and ``on_puback``."""
        self._client = client

    async def read(self) -> Held:
        roles = await self._list("listRoles", "roles")
        clients = await self._list("listClients", "clients")
        defaults = await self._ask({"command": "getDefaultACLAccess"})
        base = next((role for role in roles if role["rolename"] == dynsec_rules.BASE_ROLE), None)
        rules: dict[str, Rule | None] = {
            dynsec_rules.rule_name(role["rolename"]): dynsec_rules.rule_of(role) for role in roles if role is not base
        }
        return Held(
            base=base is not None and dynsec_rules.is_base(base) and _all_denied(defaults),
            rules=rules,
            users={client["username"]: dynsec_rules.rules_of(client, rules) for client in clients},
        )

    async def apply(self, change: Change) -> None:
        if isinstance(change, PutBase):
            await self._put_base()
        else:
            await self._ask(dynsec_rules.command(change))

    async def apply_all(self, changes: Sequence[Change]) -> None:
        await self._ask_all([dynsec_rules.command(change) for change in changes])

    async def kick(self, principal: str, *, again: PutUser | None) -> None:
        if again is not None:
            await self.apply(again)
            return
        await self._ask({"command": "createClient", "username": principal})
        await self.apply(DropUser(principal))  # it is this that ends a connection

    async def close(self) -> None:
        await self._client.disconnect()

    async def _put_base(self) -> None:
        command = dynsec_rules.command(PutBase())
        try:
            await self._ask(command)
        except BrokerRefusedError:  # it is there, and not as it should be
            await self._ask(command | {"command": "modifyRole"})
        denials = [{"acltype": kind, "allow": False} for kind in dynsec_rules.DEFAULTS]
        await self._ask({"command": "setDefaultACLAccess", "acls": denials})

    async def _list(self, command: str, what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = await self._ask({"command": command, "verbose": True, "count": _PAGE, "offset": len(found)})
            page = answer["data"][what]
            found += page
            if len(page) < _PAGE:
                return found

    async def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send one command and wait for its answer. Raises ``BrokerGoneError``, ``BrokerRefusedError``."""
        return (await self._ask_all([command]))[0]

    async def _ask_all(self, commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send some commands in one message, and wait for the answers, which come in one too."""
        client = self._client
        self._expected = len(commands)
        self._asked = str(next(self._numbers))
        self._answer = answer = asyncio.get_running_loop().create_future()
        payload = json.dumps({"commands": [one | {"correlationData": self._asked} for one in commands]}).encode()
        try:
            self._mid = client.publish(_CONTROL, payload, qos=1)
            async with asyncio.timeout(self._answer_timeout_s):
                await asyncio.wait((answer, client.closed), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            client.abort()
            raise BrokerGoneError(
                f"no answer within {self._answer_timeout_s:g} s: the broker is frozen, or lacks the plugin"
                " mosquitto_dynamic_security"
            ) from error
        except UnavailableError as error:
            raise BrokerGoneError(str(error)) from error
        finally:
            self._answer = None
        if not answer.done():
            raise BrokerGoneError(f"connection lost: {client.closed.result()}")
        found: list[dict[str, Any]] = answer.result()
        for one in found:
            if "error" in one:
                raise BrokerRefusedError(f"{one['command']}: {one['error']}")
        return found

    def on_message(self, message: Message) -> None:
        """An answer: the one that is waited for, or one that came too late."""
        try:
            answers: list[dict[str, Any]] = json.loads(message.payload)["responses"]
        except (ValueError, KeyError, TypeError) as error:
            _log.error("the broker's plugin says what is no answer: %r: %s", error, message.payload[:200])
            return
        waiting = self._answer
        found = [one for one in answers if one.get("correlationData") == self._asked]
        if len(found) == self._expected and waiting is not None and not waiting.done():
            waiting.set_result(found)

    def on_puback(self, mid: int, reason_code: int) -> None:
        """The broker took a command, or refuses us."""
        waiting = self._answer
        if mid == self._mid and reason_code >= _REFUSED and waiting is not None and not waiting.done():
            waiting.set_exception(BrokerRefusedError(f"{PRINCIPAL} may not write {_CONTROL} (0x{reason_code:02x})"))


def _all_denied(defaults: Mapping[str, Any]) -> bool:
    return not any(line["allow"] for line in defaults["data"]["acls"])
