"""Metrics of the Local Registry; with many simulated RAEs in one process they are the sum over all."""

from dmpd.runtime.metrics import counter, gauge, histogram

revisions = counter("dmpd_local_registry_revisions_total", "Changes of devices committed to the store.")
commits = counter("dmpd_local_registry_commits_total", "Transactions of the store, by outcome.", ("outcome",))
commit_seconds = histogram(
    "dmpd_local_registry_commit_seconds",
    "Time of one transaction, disk flush included.",
    unit="seconds",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
)
evidence_dropped = counter(
    "dmpd_local_registry_evidence_dropped_total", "Sightings that identify no device, or one device too many."
)
changes_refused = counter(
    "dmpd_local_registry_changes_refused_total", "Changes that broke a limit of the message format, and were not kept."
)
stores_rebuilt = counter("dmpd_local_registry_stores_rebuilt_total", "Damaged stores set aside and begun anew.")
outbox_rows = gauge("dmpd_local_registry_outbox_rows", "Outbox rows that are not yet durable in Kafka.")
outbox_bytes = gauge("dmpd_local_registry_outbox_bytes", "Payload bytes of these rows.")
rows_coalesced = counter(
    "dmpd_local_registry_outbox_coalesced_total", "Unsent rows that gave way to one checkpoint, over the bound."
)
events_dropped = counter("dmpd_local_registry_events_dropped_total", "Unsent events dropped over the bound.")
published = counter("dmpd_local_registry_published_total", "Messages handed to the broker, by kind.", ("kind",))
pubacks = counter("dmpd_local_registry_pubacks_total", "Answers of the broker, by reason code.", ("code",))
rows_durable = counter("dmpd_local_registry_rows_durable_total", "Outbox rows that the bridge reported as stored.")
connects = counter("dmpd_local_registry_connects_total", "Attempts to reach the broker, by outcome.", ("outcome",))
connected = gauge("dmpd_local_registry_connected_raes", "RAEs of this process with a connection to the broker.")
messages_ignored = counter(
    "dmpd_local_registry_messages_ignored_total", "Messages received that are not for us or cannot be read."
)
source_failures = counter(
    "dmpd_local_registry_source_failures_total", "LAN sources that failed and were begun anew.", ("source",)
)
probes_failed = counter("dmpd_local_registry_probes_failed_total", "Probes that could not be sent.")
requests = counter(
    "dmpd_local_registry_requests_total",
    "Requests that were answered for good, by verb and outcome.",
    ("verb", "outcome"),
)
requests_repeated = counter(
    "dmpd_local_registry_requests_repeated_total", "Requests that were known already: answered again, not run again."
)
requests_open = gauge("dmpd_local_registry_requests_open", "Requests accepted and not yet answered for good.")
replies_dropped = counter(
    "dmpd_local_registry_replies_dropped_total", "Answers that are no outbox rows, dropped because too many waited."
)
