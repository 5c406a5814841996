"""All DUTs of one lab in one process: a DHCP client and a responder each, in their namespaces, and the control socket.

Hundreds of Python processes would cost gigabytes; one serves them all, because a socket stays in the namespace in which
it was made.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from dmpd.lab import lan_tools as tools
from dmpd.lab.duts.control import COMMANDS
from dmpd.lab.duts.device import Device, esn_of, is_esn, new_device, random_mac
from dmpd.lab.duts.dhcp_client import DhcpClient
from dmpd.lab.duts.responder import Responder
from dmpd.lab.lan import Dut, LanLab
from dmpd.lab.lan_tools import LanLabError

_log = logging.getLogger(__name__)


class Member:
    """One DUT that runs: its state, its DHCP client, its sockets."""

    def __init__(self, dut: Dut, command: list[str], memory: Path) -> None:
        self.dut = dut
        self._memory = memory
        self.device = _device_now(dut)
        if memory.exists():
            self.device.esn, generation = memory.read_text().split()
            self.device.generation = int(generation)
        self.responder = Responder(self.device, dut.namespace, on_magic=self._woken)
        self.client = DhcpClient(command, on_lease=self._leased)

    async def run(self) -> None:
        """Runs until cancelled."""
        self._answer_arp(answers=True)
        await self.responder.open()
        try:
            await self.client.run()
        finally:
            self.responder.close()

    def sleep(self) -> None:
        """Say goodbye and answer no more; one that can be woken does not even answer ARP then."""
        self.responder.announce(alive=False)
        self.device.asleep = True
        if self.device.wakeable:
            self._answer_arp(answers=False)

    def wake(self) -> None:
        self.device.asleep = False
        self._answer_arp(answers=True)
        self.responder.announce(alive=True)

    def swap_esn(self, esn: str | None = None) -> None:
        """Another ESN on the same hardware, the next one if none is given; told to everybody at once.

        Raises:
            LanLabError: It is none.
        """
        if esn is not None and not is_esn(esn):
            raise LanLabError(f"an ESN is 4 to 128 of A-Z a-z 0-9 . _ = + -, got {esn!r}")
        self._next_esn(esn)
        self.responder.announce(alive=True)

    def swap_mac(self) -> None:
        """Another MAC under the same ESN: as after a change of the board, so the link goes down and up."""
        self._next_mac()
        self._reconnect()

    def replace(self) -> None:
        """Another device on the same cable: neither its MAC nor its ESN was seen before."""
        self._next_esn()
        self._next_mac()
        self._reconnect()

    def told(self) -> dict[str, Any]:
        """What it is now, for people and tests."""
        device = self.device
        apps = {name: msgspec.structs.asdict(app) for name, app in device.apps.items()}
        return {
            "mac": device.mac,
            "esn": device.esn,
            "asleep": device.asleep,
            "ip": self.responder.ip(),
            "leased_at": self.client.leased_at,
            "apps": apps,
        }

    def _next_esn(self, esn: str | None = None) -> None:
        self.device.generation += 1
        self.device.esn = esn or esn_of(self.device.number, self.device.generation)
        self._remember()

    def _remember(self) -> None:
        """A device keeps its ESN when it is switched off; its interface keeps the MAC by itself."""
        self._memory.write_text(f"{self.device.esn} {self.device.generation}")

    def _next_mac(self) -> None:
        self.device.generation += 1
        self._remember()
        mac = random_mac(self.device.number, self.device.generation)
        for words in (["down"], ["address", mac], ["up"]):
            tools.run(["ip", "-n", self.dut.namespace, "link", "set", "eth0", *words])
        self.device.mac = mac

    def _reconnect(self) -> None:
        self.client.leased_at = None
        self.client.ask_again()

    def _answer_arp(self, *, answers: bool) -> None:
        tools.run(["ip", "-n", self.dut.namespace, "link", "set", "eth0", "arp", "on" if answers else "off"])

    def _leased(self, ip: str) -> None:
        _log.info("%s has %s", self.dut.name, ip)
        if not self.device.asleep:
            self.responder.announce(alive=True)

    def _woken(self) -> None:
        if self.device.asleep:
            _log.info("%s was woken by a magic packet", self.dut.name)
            self.wake()


class Fleet:
    """Every DUT of ``lan``; ``run`` ends when it is cancelled."""

    def __init__(self, lan: LanLab, control: Path) -> None:
        self._control = control
        self._members = {
            dut.name: Member(dut, lan.dut_command(dut.name), control.with_name(f"{dut.name}.esn")) for dut in lan.duts()
        }

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            LanLabError, OSError: The LAN is not up, or its sockets cannot be made.
        """
        with suppress(FileNotFoundError):
            self._control.unlink()  # of a fleet that was killed
        server = await asyncio.start_unix_server(self._serve, self._control)
        self._control.chmod(0o600)
        async with server, asyncio.TaskGroup() as group:
            for member in self._members.values():
                group.create_task(member.run())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = self._answer(await reader.readline())
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError) as error:
            _log.warning("a command got no answer: %s", error)
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            return {"found": self._do(asked["do"], asked.get("dut"), asked.get("esn"))}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"not a command: {error}"}
        except LanLabError as error:
            return {"error": str(error)}

    def _do(self, command: str, name: str | None, esn: str | None) -> dict[str, Any]:
        if command == "list":
            return {name: member.told() for name, member in self._members.items()}
        member = self._members.get(name or "")
        if member is None or command not in COMMANDS:
            raise LanLabError(
                f"there is no {command} {name}; there are {', '.join(COMMANDS)} and d1 … d{len(self._members)}"
            )
        actions: Final[dict[str, Callable[[], None]]] = {
            "sleep": member.sleep,
            "wake": member.wake,
            "swap-mac": member.swap_mac,
            "swap-esn": lambda: member.swap_esn(esn),
            "replace": member.replace,
        }
        actions[command]()
        return member.told()


def _device_now(dut: Dut) -> Device:
    """The device with the MAC that its interface has: a fleet that was killed may have swapped it."""
    links = tools.run_json(["ip", "-n", dut.namespace, "-j", "link", "show", "dev", "eth0"])
    return new_device(dut.number, str(links[0]["address"]))
