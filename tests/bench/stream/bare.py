"""The reference: a loop that consumes and touches key, value and offset. ``python -m`` runs it in a fresh process."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from msgspec import Struct

from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import consumer as product
from dmpd.stream.settings import StreamSettings

_ROOT = Path(__file__).resolve().parents[3]


class BareRun(Struct):
    """First record to last."""

    rate: float
    cpu_us: float
    """All threads of the process, per record."""


def run(bootstrap: str, topic: str, partitions: int, records: int, *, defaults: bool) -> BareRun:
    """Consume ``records``, with the stream's settings or with those that the client has by itself."""
    argument = json.dumps([bootstrap, topic, partitions, records, defaults])
    command = [sys.executable, "-m", "tests.bench.stream.bare", argument]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, check=True, timeout=300)
    return BareRun(*json.loads(done.stdout))


def _settings(bootstrap: str, *, defaults: bool) -> dict[str, Any]:
    if defaults:
        return {"bootstrap.servers": bootstrap, "group.id": "bare-defaults"}
    return {name: value for name, value in _stream_settings(bootstrap).items() if not callable(value)}


def _stream_settings(bootstrap: str) -> dict[str, Any]:
    """What the stream gives its client: seen where it makes it, so that it is the same also after a change there."""
    seen: list[dict[str, Any]] = []
    product.Consumer = seen.append  # type: ignore[attr-defined,assignment]
    product.StreamConsumer(KafkaSettings(bootstrap_servers=bootstrap), StreamSettings(group="bare"), None)  # type: ignore[arg-type]
    return seen[0]


def main() -> None:
    bootstrap, topic, partitions, records, defaults = json.loads(sys.argv[1])
    consumer = Consumer(_settings(bootstrap, defaults=defaults))
    consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(partitions)])
    seen, started_s, cpu_before_s = 0, 0.0, 0.0
    while seen < records:
        batch = consumer.consume(1000, 0.1)
        if batch and not seen:
            started_s, cpu_before_s = time.monotonic(), time.process_time()
        for message in batch:
            touched = message.key(), message.value(), message.offset()
            assert None not in touched
        seen += len(batch)
    took_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_before_s
    consumer.close()
    print(json.dumps([records / took_s, cpu_s / records * 1e6]))


if __name__ == "__main__":
    main()
