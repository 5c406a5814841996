"""What the consumer tells librdkafka: pure. What each group protocol refuses is left out."""

from typing import Any, Final

from dmpd.stream.settings import StreamSettings

_BULK_BYTES: Final = 64 * 1024
"""More than this is a batch already; a worker too takes it for bulk."""


def consumer_settings(settings: StreamSettings) -> dict[str, Any]:
    """Everything but how to reach Kafka and the callbacks."""
    return {
        "group.id": settings.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        **group_settings(settings),
    }


def tuning(settings: StreamSettings) -> dict[str, Any]:
    """What an operator may change by ``kafka.options``."""
    return {
        "queued.min.messages": 5000,
        "queued.max.messages.kbytes": settings.prefetch_bytes_max // 1024,
        "fetch.queue.backoff.ms": 10,  # its default of 1000 costs most of the throughput
        "fetch.wait.max.ms": 100,  # how late a resume takes effect while others flow, and how often an idle client asks
        **lingering(settings.linger_ms),
    }


def lingering(linger_ms: int) -> dict[str, Any]:
    """Where the broker gathers, neither this process nor a worker wakes before there is enough, or time is up."""
    if not linger_ms:
        return {}
    return {"fetch.min.bytes": _BULK_BYTES, "fetch.wait.max.ms": linger_ms}


def group_settings(settings: StreamSettings) -> dict[str, Any]:
    """How partitions are shared. With ``consumer`` (KIP-848) the broker's group settings decide, and naming a client's
    timeout or assignor is an error there.
    """
    if settings.group_protocol == "consumer":
        return {"group.protocol": "consumer"}
    session_ms = int(settings.session_timeout_s * 1000)
    return {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_ms,
        "heartbeat.interval.ms": min(1000, session_ms // 4),
    }
