"""``workers``: what 48 of them take to start and in memory, and how long after a death the next record is handled."""

import tempfile
from pathlib import Path
from typing import Final

from tests.bench.report import Figure, figure, worst
from tests.bench.stream.broker import Broker
from tests.bench.stream.size import Size
from tests.support import worker_costs
from tests.support.stream_group import Group, SteadyLoad

_DEATHS: Final = 10
_PER_S: Final = 200


def measure(broker: Broker, size: Size) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="dmpd-bench-") as folder:
        took_s, sizes_mib, _ = worker_costs.start(Path(folder))
    return [
        figure("workers/start", "ms", [1000 * one_s for one_s in took_s], bar="<= 20"),
        worst("workers/memory", "MiB", sizes_mib, bar="<= 12"),
        figure("workers/death", "ms to the next record", [1000 * one_s for one_s in _deaths_s(broker)], bar="<= 100"),
    ]


def _deaths_s(broker: Broker) -> list[float]:
    topic = broker.topic(1)
    with (
        tempfile.TemporaryDirectory(prefix="dmpd-bench-") as folder,
        SteadyLoad(broker.bootstrap, topic, 1, per_s=_PER_S) as load,
        Group(Path(folder), broker.bootstrap, topic, 1, dead_letter_topic=broker.dead) as group,
    ):
        one = group.start("one")
        group.wait_flowing(0.0)
        found: list[float] = worker_costs.die(group, one, _DEATHS)
        group.end(load, "one")
    return found
