"""What the lab's LAN needs of the machine: ``ip`` run with named errors, namespaces, their processes, a free subnet.

Everything here blocks for milliseconds, needs root, and touches only what its arguments name.
"""

import ctypes
import ipaddress
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

_COMMAND_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 3.0
_POLL_S: Final = 0.02
_UPLINKS: Final = ipaddress.IPv4Network("10.192.0.0/11")
"""Where uplinks are taken from: private, and rarely used by anybody else."""

_NAMES: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000

_PROGRAMS: Final = (
    ("ip", "iproute2"),
    ("dnsmasq", "dnsmasq-base"),
    ("busybox", "busybox"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
)
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/local/sbin"


class LanLabError(Exception):
    """The LAN cannot be made or changed; the text names the command and shows what it said itself."""


def program(name: str) -> str:
    """The path of an installed program, also of one that only root has on its search path.

    Raises:
        LanLabError: It is not installed; the text says which package brings it.
    """
    found = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        raise LanLabError(f"{name} is not installed (apt-get install {dict(_PROGRAMS).get(name, name)})")
    return found


def run(argv: Sequence[str]) -> str:
    """Run a command to its end and return its standard output.

    Raises:
        LanLabError: It could not be started, failed, or took longer than 20 s.
    """
    words = " ".join(argv)
    try:
        done = subprocess.run(
            [program(argv[0]), *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise LanLabError(f"{words}: not done after {_COMMAND_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise LanLabError(f"{words}: {said}")
    return done.stdout.decode(errors="replace")


def run_json(argv: Sequence[str]) -> list[dict[str, Any]]:
    """Like ``run`` for the JSON output of ``ip -j``; no output is an empty list."""
    found: list[dict[str, Any]] = json.loads(run(argv) or "[]")
    return found


def unavailable_reason() -> str | None:
    """Why this machine cannot have a LAN of network namespaces, in one line; None = it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        for name, _package in _PROGRAMS:
            program(name)
        # A namespace without a name, gone with its only process: tells whether the kernel has all we need.
        probe = "ip link add name probe0 type bridge && ip link add name probe1 type veth peer name probe2"
        run(["unshare", "--net", "sh", "-c", probe])
        _probe_named_namespace()
        run(["busybox", "udhcpc", "--help"])
    except LanLabError as error:
        return " ".join(str(error).split())
    return None


def _probe_named_namespace() -> None:
    """Names need mounts too, which containers and chroots may refuse where plain namespaces work."""
    name = f"dmpd-probe-{os.getpid()}"
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "-n", name, "link", "set", "lo", "up"])
    finally:
        run(["ip", "netns", "delete", name])


def namespaces() -> list[str]:
    """Names of all network namespaces of this machine."""
    return [line.split()[0] for line in run(["ip", "netns", "list"]).splitlines() if line.strip()]


def processes_in(namespace: str) -> list[int]:
    """Ids of the processes that run in a named namespace now."""
    return [int(word) for word in run(["ip", "netns", "pids", namespace]).split()]


def end_processes(namespace: str) -> None:
    """End whatever still runs in ``namespace``: TERM, and KILL for what is left after 3 s.

    Raises:
        LanLabError: Something survived even that.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes_in(namespace):
            with suppress(ProcessLookupError):  # it ended between the look and the signal
                os.kill(pid, number)
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if not processes_in(namespace):
                return
            time.sleep(_POLL_S)
    raise LanLabError(f"processes {processes_in(namespace)} in namespace {namespace} do not end")


def delete_namespace(namespace: str) -> None:
    """End its processes, then remove it: an interface lives as long as a process holds its namespace."""
    end_processes(namespace)
    run(["ip", "netns", "delete", namespace])


def enter_namespace(name: str) -> None:
    """Move the calling thread, and only it, into a named network namespace.

    Raises:
        OSError: It is not there, or we may not. Source: setns(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(_NAMES / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")
    finally:
        os.close(descriptor)


def in_namespace(name: str, function: Callable[[], _T]) -> _T:
    """``function()`` in a thread of its own that lives in a namespace: the sockets that it makes stay there."""

    def inside() -> _T:
        enter_namespace(name)
        return function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(inside).result()


def used_networks() -> list[ipaddress.IPv4Network]:
    """The IPv4 networks that this machine has addresses in or routes to, default routes aside."""
    links = run_json(["ip", "-j", "-4", "address", "show"])
    routes = run_json(["ip", "-j", "-4", "route", "show", "table", "all"])
    texts = [f"{entry['local']}/{entry['prefixlen']}" for link in links for entry in link.get("addr_info", ())]
    texts += [route["dst"] for route in routes if route["dst"] != "default"]
    return [ipaddress.IPv4Network(text, strict=False) for text in texts]


def free_uplink(taken: Sequence[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """A random /30 that touches none of ``taken``: random, so that two labs starting at once hardly choose the same.

    Raises:
        LanLabError: None was found.
    """
    first = int(_UPLINKS.network_address)
    for _attempt in range(1000):
        block = random.randrange(_UPLINKS.num_addresses // 4)  # noqa: S311 - spreads labs, guards nothing
        candidate = ipaddress.IPv4Network((first + 4 * block, 30))
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise LanLabError(f"found no free /30 in {_UPLINKS} for the uplink")
