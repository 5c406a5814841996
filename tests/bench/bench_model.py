"""What decoding and folding a change costs, beside ``orjson.loads`` of the same bytes: 365 B, 8 attributes."""

import time
import uuid

import orjson

from dmpd.model.codec import decode
from dmpd.model.fold import fold, fold_of
from dmpd.model.topics import info_topic, parse_topic
from tests.bench.report import figure, publish

RECORDS = 20_000
RUNS = 9


def payloads(session: str) -> list[bytes]:
    found = []
    for rev in range(1, RECORDS + 1):
        attributes = {f"attribute_{n}": f"value {rev % (n + 2)}" for n in range(8)}
        message = {
            "v": 1,
            "kind": "change",
            "rae": "rae-0001",
            "session": session,
            "epoch": 1_764_043_200_123,
            "at": "2026-11-25T04:00:00.123Z",
            "rev": rev,
            "seq": rev,
            "set": {"state": "online", "attributes": attributes},
        }
        found.append(orjson.dumps(message))
    return found


def microseconds(action, items) -> float:
    started = time.perf_counter()
    for item in items:
        action(item)
    return (time.perf_counter() - started) / len(items) * 1e6


def main() -> None:
    session = str(uuid.UUID(int=1))
    topic = parse_topic(info_topic("rae-0001", session))
    items = payloads(session)

    def decode_and_fold(item: bytes) -> None:
        nonlocal folded
        one = fold_of(decode(item, topic))
        folded = one if folded is None else fold(folded, one)

    loads, decodes, both = [], [], []
    for _ in range(RUNS):
        folded = None
        loads.append(microseconds(orjson.loads, items))
        decodes.append(microseconds(lambda item: decode(item, topic), items))
        both.append(microseconds(decode_and_fold, items))
    print(f"{len(items[-1])} bytes, {RECORDS} records a run")
    publish(
        "model",
        [
            figure("decode", "us per message", decodes, reference=loads),
            figure("decode_and_fold", "us per message", both, reference=loads),
        ],
    )


if __name__ == "__main__":
    main()
