"""``rebalance``: how long partitions are silent while instances of one group come, go, stand still and are killed.

Under a steady load of 50 records per second and partition, with the scenarios of the tests: what they say of order and
loss is checked here too. The worst of all moves counts. Of a takeover counts what it takes beyond the session's
timeout, after which alone the broker gives an instance up.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bench.report import Figure, worst
from tests.bench.stream.broker import Broker
from tests.bench.stream.size import Size
from tests.support import stream_scenarios as scenarios
from tests.support.stream_group import Group, SteadyLoad

_PARTITIONS: Final = 12
_SESSION_S: Final = 6.0
_BROKERS_SESSION_S: Final = 4.0
"""What dmpd/lab/kafka.properties.in has for the protocol in which the session is the broker's."""
_PROTOCOLS: Final = {"classic": _SESSION_S, "consumer": _BROKERS_SESSION_S}


def measure(broker: Broker, size: Size) -> list[Figure]:
    return [
        found
        for protocol, session_s in _PROTOCOLS.items()
        for found in _figures(protocol, [_round(broker, protocol, session_s) for _ in range(size.state_runs)])
    ]


def _figures(protocol: str, rounds: list[tuple[list[float], list[float]]]) -> list[Figure]:
    kept_s = [one_s for kept, _ in rounds for one_s in kept]
    taken_s = [one_s for _, taken in rounds for one_s in taken]
    return [
        worst(f"rebalance/{protocol}/kept_silent", "s", kept_s, bar="<= 1.5"),
        worst(f"rebalance/{protocol}/takeover", "s beyond the session", taken_s, bar="<= 2"),
    ]


def _round(broker: Broker, protocol: str, session_s: float) -> tuple[list[float], list[float]]:
    """Two join, the first leaves, one stands still and comes back, one is killed: silences of those that stayed where
    they were, and takeovers beyond the session."""
    with _group(broker, group_protocol=protocol, session_timeout_s=_SESSION_S) as (group, load):
        scenarios.begun(group, load)
        kept = [
            scenarios.join(group, "two", others=["one"])[0],
            scenarios.join(group, "three", others=["one", "two"])[0],
            scenarios.leave(group, "one", others=["two", "three"])[0],
        ]
        frozen_s = scenarios.freeze_past_the_session(group, "three", others=["two"])
        silent_s, killed_s = scenarios.kill(group, "three", others=["two"])
        group.end(load, "two")
    return [*kept, silent_s], [frozen_s - session_s, killed_s - session_s]


@contextmanager
def _group(broker: Broker, **settings: object) -> Iterator[tuple[Group, SteadyLoad]]:
    topic = broker.topic(_PARTITIONS)
    with (
        tempfile.TemporaryDirectory(prefix="dmpd-bench-") as folder,
        SteadyLoad(broker.bootstrap, topic, _PARTITIONS) as load,
        Group(Path(folder), broker.bootstrap, topic, _PARTITIONS, dead_letter_topic=broker.dead, **settings) as group,
    ):
        yield group, load
