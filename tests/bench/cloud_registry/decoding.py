"""``decode``: what decoding and folding an update costs a worker, beside ``orjson.loads`` of the same bytes."""

import time
from collections.abc import Callable, Sequence

import orjson

from dmpd.model.running import Running
from tests.bench.cloud_registry.fleet import Fleet, at
from tests.bench.report import Figure, figure

_UPDATES = 20_000
_RUNS = 25
_BYTES = 365


def measure() -> list[Figure]:
    """CPU time; the two take turns, so that what else the machine does meets both."""
    fleet = Fleet(200, 1)
    payloads = [fleet.dmpd(n % 200, 2 + n // 200, at(1_760_000_000 + n)) for n in range(_UPDATES)]
    payloads = [payload.replace(b'"cause":"', b'"cause":"' + b"x" * (_BYTES - len(payload))) for payload in payloads]

    by_session = {session: [] for session in fleet.sessions}
    for number, payload in enumerate(payloads):
        by_session[fleet.sessions[number % 200]].append(payload)

    def decode_and_fold(_: Sequence[bytes]) -> None:
        for rae, session in zip(fleet.raes, fleet.sessions, strict=True):
            run = Running(rae, session)
            run.take(by_session[session], lambda number: None)
            run.fold()
            assert not run.irregular

    def loads(values: Sequence[bytes]) -> None:
        for value in values:
            orjson.loads(value)

    mine, reference = [], []
    for _ in range(_RUNS):
        reference.append(_us_each(loads, payloads))
        mine.append(_us_each(decode_and_fold, payloads))
    return [figure("decode", "us per update", mine, reference=reference, bar="<= 2x")]


def _us_each(work: Callable[[Sequence[bytes]], None], payloads: Sequence[bytes]) -> float:
    started_s = time.process_time()
    work(payloads)
    return (time.process_time() - started_s) / len(payloads) * 1e6
