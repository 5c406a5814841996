"""Metrics of the bridge."""

from collections import Counter

from dmpd.runtime.metrics import batch_histogram, counter, gauge

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)

received = counter("dmpd_bridge_received_total", "Messages received from the broker.")
redelivered = counter("dmpd_bridge_redelivered_total", "Of these, the ones the broker had sent before (DUP).")
retained = counter("dmpd_bridge_retained_total", "Of these, retained copies.")
strangers = counter("dmpd_bridge_strangers_total", "Messages acknowledged and dropped: their topic names no RAE.")
delivered = counter("dmpd_bridge_delivered_total", "Records that Kafka confirmed, by topic.", ("topic",))
dead_letters = counter("dmpd_bridge_dead_letters_total", "Messages sent to the dead-letter topic.", ("reason",))
undelivered = counter("dmpd_bridge_undelivered_total", "Delivery reports that were errors.")
late_reports = counter(
    "dmpd_bridge_late_reports_total", "Confirmations of messages of an older connection, which acknowledge nothing."
)
delivery_seconds = batch_histogram(
    "dmpd_bridge_delivery_seconds", "From receipt to Kafka's confirmation.", buckets=_SECONDS
)
pubacks = counter("dmpd_bridge_pubacks_total", "Messages acknowledged to the broker.")
puback_age_seconds = gauge("dmpd_bridge_puback_age_seconds", "How long the oldest unacknowledged message has waited.")
in_flight_messages = gauge("dmpd_bridge_in_flight_messages", "Messages that Kafka has not confirmed.")
in_flight_bytes = gauge("dmpd_bridge_in_flight_bytes", "Bytes of these messages.")
paused_seconds = gauge(
    "dmpd_bridge_paused_seconds", "Time for which nothing was read from the broker, since the start."
)
durables = counter("dmpd_bridge_durables_total", "Durable acks to RAEs, by fate.", ("fate",))
durable_ranges = counter("dmpd_bridge_durable_ranges_total", "Ranges of outbox rows in the durable acks sent.")
durable_seconds = batch_histogram(
    "dmpd_bridge_durable_seconds", "From receipt of a durable ack's oldest row to the ack.", buckets=_SECONDS
)
durable_lag_seconds = gauge(
    "dmpd_bridge_durable_lag_seconds",
    "How long the oldest row of a RAE has waited to be told durable: the worst RAEs by rank, named in /status.",
    ("rank",),
)
connects = counter("dmpd_bridge_connects_total", "Attempts to reach the broker, by outcome.", ("outcome",))
connected = gauge("dmpd_bridge_connected", "1 while there is a connection to the broker.")
producers = counter("dmpd_bridge_producers_total", "Kafka producers made: more than one means fatal errors.")


class Tally:
    """What is counted per message, kept in plain numbers until ``flush``. For one thread."""

    __slots__ = ("delivered", "late_reports", "pubacks", "received", "redelivered", "retained", "strangers")

    def __init__(self) -> None:
        self._zero()

    def _zero(self) -> None:
        self.received = self.redelivered = self.retained = self.strangers = self.pubacks = self.late_reports = 0
        self.delivered: Counter[str] = Counter()

    def flush(self) -> None:
        """Add all to the metrics and begin at zero."""
        received.inc(self.received)
        redelivered.inc(self.redelivered)
        retained.inc(self.retained)
        strangers.inc(self.strangers)
        pubacks.inc(self.pubacks)
        late_reports.inc(self.late_reports)
        for topic, count in self.delivered.items():
            delivered.labels(topic).inc(count)
        self._zero()
