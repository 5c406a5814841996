"""Section ``cloud_registry`` of the cloud's configuration."""

from typing import Annotated

from msgspec import Meta, Struct

from dmpd.runtime.settings import Bind, DatabaseSettings, PositiveSeconds
from dmpd.stream.settings import StreamSettings


class ReconcileSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one instance asks RAEs for checkpoints of rows that may have missed something (``stale``)."""

    requests_per_s: Annotated[float, Meta(gt=0, le=10_000)] = 50.0
    """At most so many in the long run; each costs a checkpoint on the way back."""
    interval_s: PositiveSeconds = 1.0
    """Between two looks at the stale rows: how late a new one is asked at most, while few are stale."""
    backoff_first_s: PositiveSeconds = 60.0
    """A device session that stays stale is asked again after this time; then it doubles, with jitter."""
    backoff_max_s: PositiveSeconds = 3600.0
    """Up to this."""

    def __post_init__(self) -> None:
        if self.backoff_max_s < self.backoff_first_s:
            raise ValueError(f"backoff_max_s: expected at least backoff_first_s ({self.backoff_first_s:g})")


OUTBOX_HOURS_MAX = 168
"""How old a message can be when a RAE sends it: the outbox keeps rows for at most seven days."""


class RetentionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is removed when it is old. Device sessions that are open are never removed."""

    event_hours: Annotated[int, Meta(ge=1, le=87_600)] = 720
    """Events: changes of state, conflicts, ends of sessions."""
    tombstone_hours: Annotated[int, Meta(ge=1, le=87_600)] = 720
    """What is left of a session that ended. It must outlive the oldest message that could bring the session back: at
    least ``topics.retention_hours`` plus the 168 hours of a RAE's outbox."""
    canary_hours: Annotated[int, Meta(ge=1, le=24)] = 12
    """Everything of RAEs whose name begins with ``canary-``."""
    access_hours: Annotated[int, Meta(ge=24, le=876_000)] = 9600
    """Grants (``access_grant``), from their end, with their lines of the audit (``access_event``), and its other lines:
    400 days. A grant that is not over is never removed."""
    interval_s: PositiveSeconds = 60.0
    """Between two passes."""
    batch_rows: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Most rows removed in one transaction."""


class CloudRegistrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instance of the Cloud Registry. All instances of one group share the topic's partitions."""

    health_bind: Bind = "127.0.0.1:9102"
    """Of health and metrics; also what keeps a second instance with the same configuration out."""
    stream: StreamSettings = StreamSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    retention: RetentionSettings = RetentionSettings()
    transaction_sessions_max: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    """Most device sessions in one transaction. More are hardly faster and hold their locks longer."""
    transaction_bytes_max: Annotated[int, Meta(ge=64 * 1024, le=8 << 20)] = 4 << 20
    """Most message bytes in one transaction; CockroachDB refuses statements of 16 MiB."""
    retry_first_s: PositiveSeconds = 0.05
    """First wait after the database failed; it doubles, with jitter. Attempts never end: the rings hold what waits."""
    retry_max_s: PositiveSeconds = 1.0
    """Longest wait between attempts, and so about how late rows come again after a database that was away for long."""
    halt_retry_s: PositiveSeconds = 30.0
    """Wait after an error that only a person can end (a missing privilege, table or column); the partition is shown as
    ``halted`` meanwhile."""


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """What a worker needs to know; travels to it as JSON."""

    database: DatabaseSettings
    cmd_topic: str
    transaction_sessions_max: int
    transaction_bytes_max: int
    retry_first_s: float
    retry_max_s: float
    halt_retry_s: float
