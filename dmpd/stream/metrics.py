"""What the stream counts."""

from typing import Final

from dmpd.runtime import metrics

_PARTITION: Final = ("partition",)

RECORDS = metrics.counter("dmpd_stream_records_total", "Records taken from Kafka and placed into rings")
REFUSED = metrics.counter(
    "dmpd_stream_refused_records_total",
    "Records dropped because their ring was full (fetched again) or because they were placed before",
)
FOREIGN = metrics.counter(
    "dmpd_stream_foreign_records_total", "Records of a partition that was revoked or assigned anew in the same call"
)
LOST = metrics.counter(
    "dmpd_stream_lost_offsets_total", "Offsets that Kafka no longer had when they were to be fetched (retention)"
)
UNREADABLE_HEADERS = metrics.counter(
    "dmpd_stream_unreadable_headers_total", "Records whose headers could not be read: a name that is no UTF-8"
)
PASSED = metrics.counter("dmpd_stream_passed_records_total", "Records that the frontier has passed: durable, or judged")
PAUSES = metrics.counter("dmpd_stream_pauses_total", "Partitions paused because their ring was full")
DEAD_LETTERS = metrics.counter("dmpd_stream_dead_letters_total", "Dead letters delivered", ("reason",))
DEAD_LETTERS_DROPPED = metrics.counter(
    "dmpd_stream_dead_letters_dropped_total",
    "Records given up whose dead letter was not produced, because their source had too many",
    ("reason",),
)
HALTS = metrics.counter(
    "dmpd_stream_halts_total", "Partitions halted because most of their last records, from many sources, were invalid"
)
HALTED = metrics.gauge(
    "dmpd_stream_halted_partitions",
    "Partitions halted now, by their verdicts or by what the sink says: an operator is needed",
)
WAITING = metrics.gauge(
    "dmpd_stream_waiting_partitions", "Partitions whose sink takes nothing now; they go on by themselves"
)
HELD = metrics.gauge("dmpd_stream_operator_paused_partitions", "Partitions that an operator has paused")
EMITTED = metrics.counter("dmpd_stream_emitted_records_total", "Records that handlers emitted, delivered")
PRODUCE_FAILURES = metrics.counter(
    "dmpd_stream_produce_failures_total", "Dead letters or emitted records that Kafka refused; each is tried again"
)
WORKER_DEATHS = metrics.counter("dmpd_stream_worker_deaths_total", "Workers that died while their partition was ours")
STUCK_WORKERS = metrics.counter(
    "dmpd_stream_stuck_workers_total", "Workers killed because they released nothing for too long"
)
CONDEMNED = metrics.counter(
    "dmpd_stream_condemned_records_total", "Records given up because their workers died of them"
)
RESETS = metrics.counter("dmpd_stream_resets_total", "Partitions begun anew at their frontier, by cause", ("cause",))
FORK_SERVER_DEATHS = metrics.counter("dmpd_stream_fork_server_deaths_total", "Fork servers that died and were replaced")
COMMITS = metrics.counter("dmpd_stream_commits_total", "Offset commits by outcome", ("outcome",))
CLIENT_REBUILDS = metrics.counter(
    "dmpd_stream_client_rebuilds_total", "Kafka clients that failed for good and were replaced"
)
CLIENT_ERRORS = metrics.counter("dmpd_stream_client_errors_total", "Errors that the Kafka client reported", ("code",))
REBALANCES = metrics.counter("dmpd_stream_rebalances_total", "Partitions assigned, revoked or lost", ("event",))
RING_USED = metrics.gauge("dmpd_stream_ring_used_bytes", "Bytes in a partition's ring", _PARTITION)
LAG = metrics.gauge(
    "dmpd_stream_lag_records", "Offsets between the frontier and the end of the log, markers included", _PARTITION
)
LAG_SECONDS = metrics.gauge(
    "dmpd_stream_lag_seconds",
    "Age of the oldest record that the frontier has not passed; 0 = there is none",
    _PARTITION,
)
ETA = metrics.gauge(
    "dmpd_stream_eta_seconds", "Until a partition has caught up, at its present speed; absent = it does not", _PARTITION
)
OLDEST_AGE = metrics.gauge(
    "dmpd_stream_oldest_record_age_seconds", "For how long the oldest unreleased record is in its ring", _PARTITION
)
PAUSED_SECONDS = metrics.counter(
    "dmpd_stream_paused_seconds_total", "For how long a partition was not fetched, for whatever reason", _PARTITION
)
PAUSED = metrics.gauge("dmpd_stream_paused_partitions", "Partitions paused now because their rings are full")
COMMIT_UNANSWERED = metrics.gauge(
    "dmpd_stream_commit_unanswered_seconds", "For how long the broker has taken no commit; 0 = it takes them"
)
