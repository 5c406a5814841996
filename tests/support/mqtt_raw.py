"""An MQTT 5 client of blocking calls: for what no client library does on purpose, and where one packet says it all."""

import contextlib
import socket
import ssl
import struct

_WAIT_S = 60.0


def text(value):
    content = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(content)) + content


def packet(kind, body):
    length, size = b"", len(body)
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | (0x80 if size else 0)])
        if not size:
            return bytes([kind]) + length + body


def connect_packet(client_id, *, will=None, keepalive_s=60):
    """``will``: (topic, payload)."""
    flags = 0x02 if will is None else 0x02 | 0x04 | 0x08
    body = text("MQTT") + bytes([5, flags]) + struct.pack(">H", keepalive_s) + b"\0" + text(client_id)
    if will is not None:
        body += b"\0" + text(will[0]) + text(will[1])
    return packet(0x10, body)


class RawClient:
    """Connected and accepted once it is made. Raises ``EOFError``, ``OSError``, ``ssl.SSLError`` when it is not."""

    def __init__(self, port, tls, client_id, *, session=None, will=None, connects=True):
        """Without ``connects`` it has shown its certificate, and ``connect`` says the rest."""
        plain = socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S)
        self._socket = tls.wrap_socket(
            plain, server_hostname="localhost", session=session, do_handshake_on_connect=False
        )
        self._mid = 0
        try:
            self._socket.do_handshake()
            if connects:
                self.connect(client_id, will=will)
        except BaseException:
            self._socket.close()
            raise
        self.session = self._socket.session
        self.session_reused = self._socket.session_reused

    def connect(self, client_id, *, will=None):
        self._socket.sendall(connect_packet(client_id, will=will))
        self._accepted(*self.read())

    @staticmethod
    def _accepted(kind, body):
        if kind != 0x20 or body[1] != 0:
            raise EOFError(f"packet {kind:#x}, reason code {body[1:2].hex()}")

    def read(self):
        """(kind and flags, body) of the next packet. Raises ``EOFError``: the broker hung up."""
        kind = self._exactly(1)[0]
        size, shift = 0, 0
        while True:
            digit = self._exactly(1)[0]
            size |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return kind, self._exactly(size)

    def publish(self, topic, payload=b"x", *, properties=b"", retain=False):
        """At QoS 1; returns the reason code of the PUBACK, and keeps what comes before it."""
        self._mid += 1
        body = text(topic) + struct.pack(">H", self._mid) + bytes([len(properties)]) + properties + payload
        self._socket.sendall(packet(0x33 if retain else 0x32, body))
        body = self._answer(0x40)
        return body[2] if len(body) > 2 else 0

    def ping(self):
        self._socket.sendall(b"\xc0\0")
        self._answer(0xD0)

    def close(self):
        with contextlib.suppress(OSError, ssl.SSLError):
            self._socket.sendall(b"\xe0\0")
        self._socket.close()

    def abort(self):
        """Without a word: the broker publishes the will."""
        self._socket.close()

    def _answer(self, kind):
        while True:
            found, body = self.read()
            if found == kind:
                return body

    def _exactly(self, size):
        found = b""
        while len(found) < size:
            part = self._socket.recv(size - len(found))
            if not part:
                raise EOFError("the broker hung up")
            found += part
        return found


def client_tls(broker, name):
    """What ``name`` connects to a ``MosquittoService`` with."""
    files = broker.authority.client(name)
    made = ssl.create_default_context(cafile=str(broker.authority.ca_file))
    made.load_cert_chain(files.cert, files.key)
    return made
