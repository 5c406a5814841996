"""The channel between parent and worker: one SOCK_SEQPACKET pair per worker life, whose end is that life's end.

Down: where the ring is published to, how many records to take at once, how many more are on their way.
Up: the worker's state, verdicts, records to produce, where it has released to.
Messages keep their borders and their order; the kernel orders the ring's memory with them. Positions are the ring's.
"""

import fcntl
import select
import socket
import struct
import termios
from typing import Final, Literal

import msgspec

from dmpd.stream.frames import Position

_PUBLISHED: Final = struct.Struct("<QII")
_PUBLISHED_BYTES: Final = _PUBLISHED.size
_RELEASED: Final = struct.Struct(">4sQBI")
_RELEASED_BYTES: Final = _RELEASED.size
_RELEASED_TAG: Final = b"\x93\xa1r\xcf"
_UINT32: Final = 0xCE
"""A ``ReleasedTo`` in msgpack, its numbers at their full width: the one word that every batch costs."""
_COMING_MAX: Final = (1 << 32) - 1
_NOTHING: Final = bytes(struct.calcsize("i"))
"""What the kernel answers when no bytes wait to be read."""
EMIT_BYTES_MAX: Final = 128 * 1024
"""Largest key plus value of one emitted record: it must fit a socket's buffer."""
_DETAIL_CHARS_MAX: Final = 2000
_MESSAGE_BYTES_MAX: Final = EMIT_BYTES_MAX + 16 * 1024

State = Literal["ready", "waiting_sink", "halted_sink", "failed", "corrupted"]
WAITING: Final[frozenset[State]] = frozenset({"waiting_sink", "halted_sink"})


class StateChanged(msgspec.Struct, array_like=True, tag="s"):
    """``ready``: the handler is made. ``waiting_sink``: the sink takes nothing. ``halted_sink``: nor will it before a
    person has done something. ``failed``, ``corrupted`` (the ring): the worker leaves.
    """

    state: State
    detail: str = ""


class Invalid(msgspec.Struct, array_like=True, tag="i"):
    """The record there goes to the dead-letter topic. Precedes the release that covers it."""

    frame: int
    nth: int
    reason: str
    detail: str


class Emit(msgspec.Struct, array_like=True, tag="e"):
    topic: str
    key: bytes
    value: bytes


class ReleasedTo(msgspec.Struct, array_like=True, tag="r"):
    """Everything before this position is durable or was judged."""

    frame: int
    nth: int


class ChannelClosedError(Exception):
    """The other side closed its end, or died, and everything it sent was read."""


Upward = StateChanged | Invalid | Emit | ReleasedTo
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Upward)
_BUFFER: Final = bytearray(_MESSAGE_BYTES_MAX)
_BUFFER_VIEW: Final = memoryview(_BUFFER)
"""Of what the parent receives, by one thread: a fresh one for each word costs more than the word."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The parent's end (never blocks) and the worker's end (blocks)."""
    parent, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent.setblocking(False)
    for end in (parent, worker):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * EMIT_BYTES_MAX)
    return parent, worker


class ParentEnd:
    """The parent's side. No call blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def publish(self, position: int, records_max: int, coming: int) -> bool:
        """Tell the worker where the ring is published to, how wide batches may be, how many records are known to come
        without its doing. False = its queue is full.
        """
        try:
            self._socket.send(_PUBLISHED.pack(position, records_max, min(coming, _COMING_MAX)))
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            return True  # its death shows elsewhere, and the next life is told anew
        return True

    def receive(self) -> Upward | None:
        """The next message; None = there is none now.

        Raises:
            ChannelClosedError: The worker's end is closed and everything it sent was read.
            msgspec.DecodeError: It sent what is no message.
        """
        try:
            size_bytes = self._receive()
        except BlockingIOError:
            return None
        if size_bytes == _RELEASED_BYTES:
            tag, frame, mark, nth = _RELEASED.unpack_from(_BUFFER)
            if tag == _RELEASED_TAG and mark == _UINT32:
                return ReleasedTo(frame, nth)
        if not size_bytes:
            raise ChannelClosedError
        message: Upward = _DECODER.decode(_BUFFER_VIEW[:size_bytes])
        return message

    def _receive(self) -> int:
        try:
            return self._socket.recv_into(_BUFFER)
        except ConnectionResetError:
            # It ended with words of ours unread. Linux says so once, before what it had sent: that comes next.
            return self._socket.recv_into(_BUFFER)

    def close(self) -> None:
        self._socket.close()


class WorkerEnd:
    """The worker's side."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.records_max: int | None = None
        """As last told by the parent; None = nothing was told yet."""
        self.coming = 0
        """Records that Kafka has beyond what is published, as last told; 0 also where the ring takes no more."""

    def published(self, known: int, *, wait: bool) -> int:
        """The newest end of what is published, at least ``known``. ``wait`` blocks until the parent says something.

        Raises:
            ChannelClosedError: The parent let go: end.
        """
        newest = max(known, self.next_published()) if wait else known
        while self._has_words():
            newest = max(newest, self.next_published())
        return newest

    def published_within(self, known: int, timeout_s: float) -> int:
        """Like ``published``; blocks for ``timeout_s`` at most, until the parent says something."""
        if select.select([self._socket], [], [], timeout_s)[0]:
            return self.published(known, wait=True)
        return known

    def _has_words(self) -> bool:
        return fcntl.ioctl(self._socket, termios.FIONREAD, _NOTHING) != _NOTHING

    def next_published(self) -> int:
        """What the parent says next, be it older than what is known; blocks. Raises ``ChannelClosedError``."""
        try:
            data = self._socket.recv(_PUBLISHED_BYTES)
        except ConnectionResetError as error:
            raise ChannelClosedError from error
        if not data:
            raise ChannelClosedError
        position: int
        position, self.records_max, self.coming = _PUBLISHED.unpack(data)
        return position

    def send(self, message: Upward) -> None:
        """Blocks while the parent does not read. Raises ``ChannelClosedError`` when it is gone."""
        self._send(_ENCODER.encode(message))

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosedError from error

    def state(self, state: State, detail: str = "") -> None:
        self.send(StateChanged(state, detail[:_DETAIL_CHARS_MAX]))

    def invalid(self, position: Position, reason: str, detail: str) -> None:
        self.send(Invalid(position.frame, position.nth, reason[:_DETAIL_CHARS_MAX], detail[:_DETAIL_CHARS_MAX]))

    def emit(self, topic: str, key: bytes, value: bytes) -> None:
        if len(key) + len(value) > EMIT_BYTES_MAX:
            raise ValueError(f"emit of {len(key) + len(value)} bytes, at most {EMIT_BYTES_MAX}")
        self.send(Emit(topic, key, value))

    def released_to(self, frame: int, nth: int) -> None:
        self._send(_RELEASED.pack(_RELEASED_TAG, frame, _UINT32, nth))
