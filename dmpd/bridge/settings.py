"""Section ``bridge`` of the cloud's configuration."""

from typing import Annotated

from msgspec import Meta, Struct

from dmpd.runtime.settings import Bind, PositiveSeconds


class BridgeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bridge between one MQTT broker (or cluster) and Kafka."""

    health_bind: Bind = "127.0.0.1:9101"
    """Of health and metrics; also what keeps a second instance with the same configuration out."""
    session_expiry_s: Annotated[int, Meta(ge=60, le=0xFFFF_FFFE)] = 86_400
    """For this long the broker keeps what arrives while the bridge is away; RAEs resend what is older."""
    in_flight_bytes_max: Annotated[int, Meta(ge=1 << 20, le=1 << 32)] = 32 << 20
    """Payload bytes that Kafka has not confirmed; above it nothing is read from the broker."""
    in_flight_messages_max: Annotated[int, Meta(ge=16, le=1_000_000)] = 20_000
    """Messages that Kafka has not confirmed; above it nothing is read from the broker."""
    receive_maximum: Annotated[int, Meta(ge=1, le=65_535)] = 1_000
    """Messages that the broker may send ahead of our PUBACKs. Mosquitto 2.0.11 exceeds it: the bounds above hold."""
    durable_delay_s: Annotated[float, Meta(ge=0.01, le=0.5)] = 0.3
    """From a row's delivery report to the ``durable`` that tells its RAE."""
    durable_rows_max: Annotated[int, Meta(ge=1, le=1_000)] = 16
    """Rows after which ``durable`` is sent without waiting."""
    drain_timeout_s: Annotated[float, Meta(ge=1, le=300)] = 15.0
    """At a stop: how long deliveries in flight are awaited. What is late is delivered again to the next bridge."""
    retry_first_s: PositiveSeconds = 0.5
    """First wait before a new connection or a new producer; it doubles, with jitter."""
    retry_max_s: PositiveSeconds = 15.0
    """Longest wait before a new connection or a new producer."""
    takeover_retry_first_s: PositiveSeconds = 10.0
    """First wait after somebody else took our name over (0x8E): most likely a second bridge runs."""
    takeover_retry_max_s: PositiveSeconds = 300.0
    """Longest wait after a takeover."""
    requests_per_rae_max: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    """Requests waiting for one RAE; what comes beyond is answered ``refused``."""
    requests_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    """Requests waiting for all RAEs; above it ``dmp.cmd`` is not read on."""
