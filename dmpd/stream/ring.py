"""A ring of frames in shared memory: one producer (the parent), one consumer (the worker), no cursor in the memory.

Positions are absolute and ever-growing bytes; index = position modulo capacity. They travel by the channel, whose
system calls order the memory, so a reader never sees a position before its bytes (right on ARM too). The ring belongs
to the assignment and outlives workers: what was published and not freed can be read again by the next one.

Frame = 8 bytes of header (length, check) and the payload, padded to 8 bytes. A frame never wraps: what is left before
the end is skipped by a padding frame.

Headers and paddings carry a check, payloads none: only the parent writes, workers map the memory read-only, so what
goes wrong is a position, or a header of another lap; a payload that is no frame fails to decode. A CRC of the payload
would cost 0.13 to 0.15 us per record of 400 B on each side (zlib, measured), as much as packing, and more than the
budget of 0.40 us for both sides leaves. Source: Agrona's ``OneToOneRingBuffer``; differs: no tail in the memory.
"""

import mmap
import os
import struct
from typing import Final

_HEADER: Final = struct.Struct("<II")
_HEADER_BYTES: Final = _HEADER.size
_ALIGNMENT: Final = 8
_PADDING_LENGTH: Final = 0xFFFF_FFFF
_UINT32_MAX: Final = 0xFFFF_FFFF
_SALT: Final = 0x5A5A_A5A5


class RingCorruptedError(Exception):
    """A header failed its check. Permanent: what lies in the ring cannot be trusted."""

    def __init__(self, position: int, length: int, check: int) -> None:
        super().__init__(position, length, check)
        self.position = position

    def __str__(self) -> str:
        return f"ring corrupted at position {self.position}: length {self.args[1]}, check {self.args[2]}"


def create_memory(capacity_bytes: int) -> int:
    """Make anonymous shared memory of at least ``capacity_bytes`` (whole pages); returns a descriptor the caller owns.

    Its size is sealed: no process that holds it can shrink it under the others (that would be SIGBUS).
    """
    import fcntl  # noqa: PLC0415 - Linux only, as is memfd

    fd = os.memfd_create("dmpd-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, -(-capacity_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def frame_bytes(payload_bytes: int) -> int:
    """Bytes that a payload takes in the ring."""
    return (_HEADER_BYTES + payload_bytes + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT


def _check(position: int, length: int) -> int:
    """Ties a header to its position, so that what an earlier lap left is not taken for a frame.

    ``read`` and ``write`` do the same in place, as they do ``frame_bytes``: a record that comes alone pays for calls.
    """
    return (position // _ALIGNMENT ^ length ^ _SALT) & _UINT32_MAX


class Ring:
    """A view of the memory behind a descriptor; the descriptor stays the caller's. Pure of any cursor."""

    def __init__(self, fd: int, *, writable: bool) -> None:
        self.capacity_bytes: Final = os.fstat(fd).st_size
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, self.capacity_bytes, mmap.MAP_SHARED, protection)
        self._view = memoryview(self._map)

    def close(self) -> None:
        self._view.release()
        self._map.close()

    @property
    def payload_bytes_max(self) -> int:
        """Largest payload that always fits into an empty ring, wherever its position stands."""
        return self.capacity_bytes // 2 - 2 * _HEADER_BYTES

    def read(self, position: int) -> tuple[memoryview, int, int]:
        """Return the payload of the first frame at or after ``position``, that frame's position, and the next one's.

        The caller knows that a frame was published there. The view is valid until the frame is freed.

        Raises:
            RingCorruptedError: No frame begins there.
        """
        capacity, view = self.capacity_bytes, self._view
        index = position % capacity
        if index % _ALIGNMENT:
            raise RingCorruptedError(position, -1, -1)
        length, check = _HEADER.unpack_from(view, index)
        if check != (position // _ALIGNMENT ^ length ^ _SALT) & _UINT32_MAX:
            raise RingCorruptedError(position, length, check)
        if length == _PADDING_LENGTH:
            return self.read(position + capacity - index)
        start = index + _HEADER_BYTES
        end = start + length
        if end > capacity:
            raise RingCorruptedError(position, length, check)
        return (
            view[start:end],
            position,
            position + (length + _HEADER_BYTES + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT,
        )

    def _write_padding(self, position: int) -> None:
        index = position % self.capacity_bytes
        _HEADER.pack_into(self._view, index, _PADDING_LENGTH, _check(position, _PADDING_LENGTH))


class RingProducer(Ring):
    """The parent's view: appends frames and frees them from the oldest.

    Invariants: ``0 <= published - freed <= capacity_bytes``; both only grow.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd, writable=True)
        self.published = 0
        """Where the next frame goes. Everything before it may be read."""
        self.freed = 0
        """Everything before it may be overwritten."""

    @property
    def used_bytes(self) -> int:
        return self.published - self.freed

    def write(self, payload: bytes | bytearray) -> int | None:
        """Append a frame. Returns its position, or None (and nothing changes) if it does not fit now."""
        length = len(payload)
        size = (length + _HEADER_BYTES + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
        position, capacity = self.published, self.capacity_bytes
        index = position % capacity
        padding = capacity - index if size > capacity - index else 0
        if position - self.freed + padding + size > capacity:
            return None
        if padding:
            self._write_padding(position)
            position, index = position + padding, 0
        start = index + _HEADER_BYTES
        view = self._view
        view[start : start + length] = payload
        _HEADER.pack_into(view, index, length, (position // _ALIGNMENT ^ length ^ _SALT) & _UINT32_MAX)
        self.published = position + size
        return position

    def free_to(self, position: int) -> None:
        """Give the space before ``position`` back; never beyond what is published, never back."""
        assert self.freed <= position <= self.published, (self.freed, position, self.published)
        self.freed = position


class RingConsumer(Ring):
    """The worker's view; cannot write."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, writable=False)
