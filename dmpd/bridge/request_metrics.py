"""Metrics of the bridge's downlink."""

from dmpd.runtime.metrics import counter, gauge, histogram

requests = counter(
    "dmpd_bridge_requests_total",
    "Records of dmp.cmd, by fate: published (each time), answered, answered_before (the last bridge saw it to its end),"
    " expired and refused (said in the RAE's place), dead_letter.",
    ("fate",),
)
requests_pending = gauge("dmpd_bridge_requests_pending", "Requests neither answered nor over.")
request_pubacks = counter(
    "dmpd_bridge_request_pubacks_total", "Answers of the broker to requests; no proof of delivery.", ("code",)
)
request_seconds = histogram(
    "dmpd_bridge_request_seconds",
    "From reading a request in Kafka to the first response to it in Kafka.",
    unit="seconds",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0),
)
