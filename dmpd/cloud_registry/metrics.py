"""What the Cloud Registry's parent counts. Workers count nothing: what they emit and give up, the stream counts."""

from typing import Final

from dmpd.runtime import metrics

STALE: Final = metrics.gauge(
    "dmpd_registry_stale_sessions",
    "Device sessions of this instance's partitions that may have missed something and wait for a checkpoint",
)
STALE_UNREACHABLE: Final = metrics.gauge(
    "dmpd_registry_stale_unreachable_sessions", "Those of them whose RAE cannot be reached: asked when it is back"
)
CHECKPOINT_REQUESTS: Final = metrics.counter(
    "dmpd_registry_checkpoint_requests_total", "Checkpoints asked for, delivered to Kafka"
)
REQUEST_FAILURES: Final = metrics.counter(
    "dmpd_registry_request_failures_total", "Requests that Kafka refused; asked again after their backoff"
)
REMOVED: Final = metrics.counter(
    "dmpd_registry_removed_rows_total",
    "Rows removed because they were old enough: device_event, device_session (tombstones), canary,"
    " access_grant, access_event",
    ("what",),
)
RETENTION_FAILURES: Final = metrics.counter(
    "dmpd_registry_retention_failures_total", "Passes of retention that failed: the database was away, or refuses"
)
RECONCILE_FAILURES: Final = metrics.counter(
    "dmpd_registry_reconcile_failures_total", "Rounds of reconciliation that failed: database or Kafka away"
)
REWINDS: Final = metrics.counter(
    "dmpd_registry_database_rewinds_total",
    "Times the database was found older than what it had confirmed: restored, or a failover that lost something",
)
