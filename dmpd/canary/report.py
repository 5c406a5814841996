"""What one run found: the facts that the verdict is judged by, and the report as it is kept. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from dmpd.canary.settings import Ramp
from dmpd.canary.summary import Summary

Word = Literal["pass", "degraded", "fail", "unknown"]
METRICS: Final = ("connect", "puback", "kafka", "row", "control_during")
"""Times whose p99 are compared with those of the last runs."""


class Counted(Struct, frozen=True, kw_only=True):
    """How often, and the first examples, for looking them up."""

    count: int = 0
    examples: Sequence[str] = ()


class Reason(Struct, frozen=True, kw_only=True):
    """Why a verdict is no ``pass``: a fixed name for programs, a sentence for people."""

    name: str
    word: Word
    sentence: str
    examples: Sequence[str] = ()


class Former(Struct, frozen=True, kw_only=True):
    """A run before this one that never ended, and what it left behind."""

    run: str
    started_at: str
    host: str


class Facts(Struct, frozen=True, kw_only=True):
    """All that was seen. What is absent was not measured, and is no proof of anything."""

    clients: int = 0
    ramp: Ramp = "linear"
    connected: int = 0
    connack_codes: Mapping[str, int] = {}
    connect_errors: Counted = Counted()
    syn_retries: int = 0
    connects_anew: int = 0
    """Connections that the broker's full queue dropped, and that their clients began anew, of those that got in."""
    times: Mapping[str, Summary] = {}
    """By name: ``tcp tls connack connect puback kafka durable row request``."""
    sent: int = 0
    acked: int = 0
    arrived: int = 0
    unsent: int = 0
    """These two and ``refused`` are of the control group too."""
    unsettled: int = 0
    lost: Counted = Counted()
    wrong: Counted = Counted()
    reordered: Counted = Counted()
    duplicates: Counted = Counted()
    late: Counted = Counted()
    refused: Counted = Counted()
    disconnects: Counted = Counted()
    rows_compared: int = 0
    rows_behind: Counted = Counted()
    """Rows that still had not what Kafka had when they were compared, behind the drain."""
    requests_asked: int = 0
    requests_unanswered: Counted = Counted()
    probes: int = 0
    """Publishes of what is another's to say that the broker refused, as it should."""
    probes_expected: int = 0
    acl_holes: Counted = Counted()
    control: Mapping[str, Summary] = {}
    """Publishing to row of the control group: ``before``, ``during``, ``after`` the crowd."""
    control_connect_errors: Counted = Counted()
    control_lost: Counted = Counted()
    control_disconnects: Counted = Counted()
    raes: Mapping[str, Summary] = {}
    """Change to row of RAEs that are no canaries, by their clocks: ``before``, ``during``, ``after``."""
    lag_zero_s: float | None = None
    lag_max: int = 0
    worker_deaths: int | None = None
    """Deaths of the Cloud Registry's workers meanwhile; ``None`` where its status cannot be asked."""
    broker: Mapping[str, Mapping[str, int]] = {}
    """``before`` and ``after``: the broker's own figures, of ``$SYS``."""
    leftovers: Counted = Counted()
    """MQTT sessions, retained messages and open device sessions that should not be."""
    cleaned: int = 0
    """Clients whose broker session was looked for at the end."""
    runner_behind_s: float = 0.0
    """By how much the runner itself sent too late, at most."""
    connects_per_s: float = 0.0
    messages_per_s: float = 0.0
    crowd_cpu_s: float = 0.0
    crowd_rss_bytes: int = 0
    former: Sequence[Former] = ()
    swept: int = 0
    """Device sessions that earlier runs had left open, and that this one closed."""
    unswept: int = 0
    """Such that it could not close."""
    problems: Sequence[Reason] = ()
    """What kept the run from proving something."""


class Report(Struct, frozen=True, kw_only=True):
    """One run, as it is kept as JSON and shown."""

    run: str
    verdict: Word
    reasons: Sequence[Reason]
    started_at: str
    took_s: float
    trigger: str
    host: str
    build: str
    seed: int
    clients: int
    ramp: str
    profile: str
    changes: int
    facts: Facts
    phases: Mapping[str, float] = {}
    """Seconds that each phase took."""


def p99s(facts: Facts) -> dict[str, float]:
    """The p99 of each of ``METRICS`` that was measured."""
    found = {name: facts.times.get(name) for name in METRICS} | {"control_during": facts.control.get("during")}
    return {name: one.p99 for name, one in found.items() if one is not None and one.p99 is not None}
