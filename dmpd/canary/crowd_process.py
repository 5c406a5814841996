"""A process with a part of the crowd: ``python -m dmpd.canary.crowd_process``. Orders in, answers out, a line each.

It ends when its orders end (the runner is gone), and cuts its connections.
"""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import uvloop
from msgspec import Struct

from dmpd.canary.crowd import Crowd, Job, Leftover
from dmpd.runtime.mqtt_stream import MqttUnreachableError
from dmpd.runtime.process import die_with_parent

LINE_BYTES_MAX: Final = 256 << 20


class Order(Struct, frozen=True, kw_only=True):
    """``job`` comes with ``prepare``, ``leftovers`` with ``sweep``."""

    do: str
    job: Job | None = None
    leftovers: list[Leftover] = []
    interval_s: float = 1.0


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``progress`` alone, or the end of an order: ``done`` with its result, or ``error``."""

    done: str = ""
    progress: Mapping[str, int] | None = None
    result: Any = None
    error: str | None = None


_orders: Final = msgspec.json.Decoder(Order)
_encode: Final = msgspec.json.Encoder().encode


def main() -> int:
    """Run until stdin ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
    return 0


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    crowd: Crowd | None = None
    while line := await reader.readline():
        order = _orders.decode(line)
        if order.job is not None:
            crowd = Crowd(order.job, progress=lambda found: _say(Answer(progress=found)))
        assert crowd is not None, "prepare comes first"
        try:
            _say(Answer(done=order.do, result=await _obey(crowd, order)))
        except (OSError, MqttUnreachableError) as error:
            _say(Answer(done=order.do, error=str(error)))
    if crowd is not None:
        crowd.abort()


async def _obey(crowd: Crowd, order: Order) -> Any:
    match order.do:
        case "prepare":
            return await crowd.prepare()
        case "connect":
            return await crowd.connect()
        case "flash":
            return await crowd.flash()
        case "beat":
            return crowd.beat(order.interval_s)
        case "close":
            return await crowd.close()
        case "report":
            return crowd.report()
        case "cleanup":
            return await crowd.cleanup()
        case "sweep":
            return await crowd.sweep(order.leftovers)
    raise AssertionError(order.do)


def _say(answer: Answer) -> None:
    """The reader is a pipe whose other end reads all the time: this waits for no longer than that takes."""
    sys.stdout.buffer.write(_encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    import os

    die_with_parent(os.getppid())
    sys.exit(main())
