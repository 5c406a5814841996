"""Devices that speak SSDP and HTTP from a namespace of the lab's LAN, honest or not, and floods of datagrams."""

import contextlib
import selectors
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Self

from dmpd.lab.lan_tools import in_namespace
from dmpd.local_registry.sources.ssdp_ether import GROUP, PORT
from dmpd.local_registry.sources.ssdp_message import DIAL_TARGET, MDX_TARGETS

HTTP_PORT = 8008
PAGE_PATH = "/dd.xml"
APP_PATH = "/apps/Netflix?clientDialVer=2.1"
APP = b"<service><name>Netflix</name><options allowStop='true'/><state>running</state></service>"


def reply(target: str, uuid: str, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"ST: {target}", f"USN: uuid:{uuid}::{target}", "CACHE-CONTROL: max-age=1800", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def notify(target: str, uuid: str, what: str) -> bytes:
    lines = [
        "NOTIFY * HTTP/1.1",
        f"HOST: {GROUP}:{PORT}",
        f"NT: {target}",
        f"NTS: {what}",
        f"USN: uuid:{uuid}::{target}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def mdx_reply(esn: str) -> bytes:
    return reply(MDX_TARGETS[0], esn)


def dial_reply(url: str) -> bytes:
    return reply(DIAL_TARGET, "dial-uuid", f"LOCATION: {url}")


def page(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers])
    return head.encode() + b"\r\n\r\n" + body


def description(ip: str, model: str) -> bytes:
    body = f"<root><device><modelName>{model}</modelName><manufacturer>Aster</manufacturer></device></root>"
    return page(body.encode(), f"Application-URL: http://{ip}:{HTTP_PORT}/apps/")


def _udp(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", PORT))
    group = struct.pack("=4s4si", socket.inet_aton(GROUP), bytes(4), socket.if_nametoindex(interface))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)
    return sock


def _tcp(port: int) -> socket.socket:
    return socket.create_server(("", port), backlog=32)


class SsdpDevice:
    """Answers searches for the targets of ``datagrams``, and HTTP by ``pages`` (path → head and body).

    Another method than GET stands before the path. A page is sent whole and the connection closed; a page that is None
    is never finished: a byte now and then.
    """

    def __init__(self, namespace: str, interface: str = "eth0", *, http_port: int = HTTP_PORT) -> None:
        self.datagrams: list[bytes] = []
        self.pages: dict[str, bytes | None] = {}
        self.fetched: list[str] = []
        self.bodies: list[bytes] = []
        self.searched = 0
        self._udp: socket.socket = in_namespace(namespace, lambda: _udp(interface))
        self._tcp: socket.socket = in_namespace(namespace, lambda: _tcp(http_port))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._slow: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopping.set()
        self._thread.join(5)
        for sock in (self._udp, self._tcp, *self._slow):
            sock.close()

    def say(self, datagram: bytes) -> None:
        self._udp.sendto(datagram, (GROUP, PORT))

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._tcp):
                selector.register(sock, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _events in selector.select(0.05):
                    (self._answer if key.fileobj is self._udp else self._serve)()
                for sock in self._slow:
                    with contextlib.suppress(OSError):
                        sock.send(b"x")

    def _answer(self) -> None:
        datagram, sender = self._udp.recvfrom(2000)
        if not datagram.startswith(b"M-SEARCH"):
            return
        self.searched += 1
        for said in self.datagrams:
            line = next(line for line in said.split(b"\r\n") if line.startswith(b"ST: "))
            if line in datagram.split(b"\r\n"):
                with contextlib.suppress(OSError):  # the cable is out
                    self._udp.sendto(said, sender)

    def _serve(self) -> None:
        connection, _peer = self._tcp.accept()
        connection.settimeout(2)
        with contextlib.suppress(OSError):  # who asks goes away in the middle: that is its right
            question = connection.recv(4096)
            method, path = question.decode().split(" ")[:2]
            path = path if method == "GET" else f"{method} {path}"
            self.bodies.append(question.partition(b"\r\n\r\n")[2])
            self.fetched.append(path)
            answer = self.pages.get(path, page(b"", status="404 Not Found"))
            if answer is None:
                connection.send(b"HTTP/1.1 200 OK\r\n\r\n<root>")
                self._slow.append(connection)
                return
            connection.sendall(answer)
        connection.close()


_FLOOD = """
import socket, struct, sys, time
ip, port, per_s, seconds, spoofed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
payload = bytes.fromhex(sys.argv[6])
if spoofed == "yes":
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    def send(n):
        source = bytes([10, 77, 2 + (n // 250) % 2, 1 + n % 250])
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 17, 0, source, socket.inet_aton(ip))
        sock.sendto(head + struct.pack("!HHHH", 1900, port, 8 + len(payload), 0) + payload, (ip, 0))
else:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if ip.startswith("239."):
        group = struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex("eth0"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)
    def send(n):
        sock.sendto(payload.replace(b"########", b"%08d" % n), (ip, port))
begin = time.monotonic()
sent = 0
while (now := time.monotonic() - begin) < seconds:
    while sent < now * per_s:
        send(sent)
        sent += 1
    time.sleep(0.001)
print(sent / (time.monotonic() - begin))
"""


@contextlib.contextmanager
def flood(
    namespace: str, datagram: bytes, *, per_s: int, seconds: float, spoofed: bool = False, to: tuple[str, int]
) -> Iterator[subprocess.Popen[str]]:
    """Send a datagram many times, ``########`` in it counting up; ``spoofed`` from 500 made-up addresses of the LAN."""
    words: Sequence[object] = (to[0], to[1], per_s, seconds, "yes" if spoofed else "no", datagram.hex())
    child = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", _FLOOD, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()
