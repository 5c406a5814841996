"""What a user of the stream writes: a handler, and what it may say while handling.

A handler lives in one worker process and sees one partition, in order. It is made there, once per worker life, by a
factory named as ``"package.module:function"`` so that the fork server can import it before any worker starts. A whole
handler, started by ``stream.run.run(kafka, settings, handler="my.module:make", lifecycle=lifecycle)``::

    class Print:
        def handle(self, records, output):
            for record in records:
                if record.value is None:
                    output.invalid(record, "empty value")
                else:
                    print(record.offset, record.value)

        def close(self):
            print("bye")

    def make(partition, argument):
        return Print()
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec


class Record(msgspec.Struct, frozen=True, gc=False):
    """One Kafka record as the handler sees it. ``key`` and ``value`` own their bytes.

    Headers of which one has a name that is no UTF-8 are one header instead, ``dmpd-headers-unreadable``.

    A struct that the garbage collector does not follow, because batches are tens of thousands of them: as tuples they
    cost six times as much.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Output(Protocol):
    """What a handler may say of the records it was given. No call blocks for longer than a send on a local socket."""

    def invalid(self, record: Record, reason: str, detail: str = "") -> None:
        """Give ``record`` up: it goes to the dead-letter topic with ``reason`` and is then counted as handled."""

    def emit(self, topic: str, key: bytes, value: bytes) -> None:
        """Produce a record; the offsets of this batch are committed only after it is delivered.

        Raises:
            ValueError: Key and value together are larger than ``channel.EMIT_BYTES_MAX``.
        """

    def waiting_sink(self, detail: str = "", *, halted: bool = False) -> None:
        """Say that the sink takes nothing and that this handler keeps trying. Repeat at each attempt.

        Args:
            detail: Why, for people: shown in ``/status``. Best the same words at each attempt.
            halted: Trying again will not help before a person has done something: an alarm, like a halted partition.
        """


class Handler(Protocol):
    """Handles the records of one partition. All calls come from one thread of one worker process.

    A handler that gets cheaper with wide batches may have an attribute ``batch_bytes_wanted``, read before each
    batch: while records come in bulk, its worker lets them come until so many bytes are there, or it waited as long as
    the last batch took (0.1 to 3 s; at least 2 s while Kafka is known to have more and the ring has room), or, where
    no more is known to come, none came for a while. It is given about that much at once and no more, so that the ring
    can fill while it works. The first batch of a worker is narrow: how fast it is decides how much is let in. A record
    that comes alone never waits.
    """

    def handle(self, records: Sequence[Record], output: Output) -> None:
        """Handle ``records``, oldest first: all that the ring holds, up to the configured bounds of a batch.

        Blocks as long as it must; the ring fills meanwhile and the partition is paused. On return every record is
        durable in the sink or was called ``invalid``. Raising, like dying, means that none of them was handled: the
        worker is replaced and its successor gets them again, so handling must be idempotent.
        """

    def close(self) -> None:
        """Let go of connections. Called when the worker is told to end; not called when it is killed."""


HandlerFactory = Callable[[int, bytes], Handler]
"""Called in the worker with its partition number and the argument given to ``run`` (the handler's settings)."""
