"""Settings of the stream: one section of a program's configuration."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dmpd.runtime.settings import PositiveInt, PositiveSeconds

MEBIBYTE = 1 << 20
RING_BYTES = 20 * MEBIBYTE
"""Of each partition, where memory is not limited."""


class StreamSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one instance processes a topic: what it reads, what it may hold in memory, how long it may take to end."""

    topic: Annotated[str, Meta(min_length=1)] = "dmp.info"
    """Kafka topic to process. Changing it changes what is processed; offsets are kept per group and topic."""
    dead_letter_topic: Annotated[str, Meta(min_length=1)] = "dmp.info.dead"
    """Kafka topic that receives what the handler gave up, with the reason in headers. Never the topic itself."""
    dead_letters_per_source_per_minute: PositiveInt = 1000
    """Most dead letters that one source (what that is, the program says; else the key) may cause in a minute. What is
    over it is judged, counted and sampled (every 1000th), not produced."""
    group: Annotated[str, Meta(min_length=1)] = "dmpd-cloud-registry"
    """Consumer group. All instances of it share the partitions of the topic."""
    ring_bytes: Annotated[int, Meta(ge=64 * 1024, le=1 << 30)] | None = None
    """Capacity of each partition's ring, bytes; rounded up to whole pages. At least 4 x ``max_record_bytes``. Absent =
    20 MiB, or less where the memory limit of the cgroup does not hold so many for all partitions of the topic; then the
    two bounds of batches shrink too. Set, it means that you have counted yourself, and all three stay as they are."""
    max_record_bytes: Annotated[int, Meta(ge=1024, le=1 << 28)] = MEBIBYTE
    """Largest record (key, value and headers, bytes, and 11 per header) that is offered to the handler; a larger one is
    dead-lettered."""
    batch_records_max: PositiveInt = 50_000
    """Most records that one call of the handler gets. Wide batches are where a database sink gets its speed."""
    batch_bytes_max: Annotated[int, Meta(ge=1024)] = 20 * MEBIBYTE
    """Most bytes (as they lie in the ring) that one call of the handler gets; a single larger record is still given."""
    consume_records_max: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    """Most records taken from the Kafka client in one turn of the loop; 500 to 2000 is where it is fastest."""
    prefetch_bytes_max: Annotated[int, Meta(ge=1 << 20, le=1 << 30)] = 16 * MEBIBYTE
    """Most bytes that the Kafka client holds before we take them, all partitions together."""
    linger_ms: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Let Kafka gather records for up to this long before it gives them (until there are 64 KiB, per broker): fewer and
    wider batches for less CPU, at the price of latency. 0 = every record at once (within 1.25 ms,
    where they come thick). What waits in bulk never waits."""
    commit_records: PositiveInt = 1000
    """Commit after this many records, or after ``commit_interval_s``, whichever is first."""
    commit_interval_s: PositiveSeconds = 1.0
    """Longest time from a record's release to the commit that covers it."""
    commit_repeat_s: PositiveSeconds = 30.0
    """Commit an unchanged frontier again this often: a late commit of a former owner may have pulled it back."""
    commit_deadline_s: PositiveSeconds = 10.0
    """An unanswered commit is taken for lost after this time, and the next one is sent."""
    drain_timeout_s: PositiveSeconds = 30.0
    """On TERM: time to process what was fetched. Then the rest goes back to Kafka and the program ends at once."""
    revoke_timeout_s: PositiveSeconds = 1.0
    """On losing a partition to another instance: time for the batch in the sink. All others stand still meanwhile."""
    session_timeout_s: Annotated[float, Meta(ge=2, le=1800)] = 10.0
    """After this time without a heartbeat Kafka gives this instance's partitions to others (``session.timeout.ms``).
    Not used with ``group_protocol: consumer``."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """``classic``: cooperative-sticky rebalances. ``consumer``: KIP-848, Kafka 4.0 or later; then the broker decides
    when an instance is dead (``group.consumer.session.timeout.ms``, 45 s there unless changed)."""
    stuck_timeout_s: PositiveSeconds = 60.0
    """A worker that has records and releases none for this long is killed and its records are taken apart."""
    sink_silence_timeout_s: PositiveSeconds = 90.0
    """The same, for a worker that last said that it waits for its sink: at least 3 x the sink's statement timeout."""
    fetch_silence_timeout_s: PositiveSeconds = 30.0
    """A partition that has something to fetch and is not paused, and whose fetching stands still for this long although
    Kafka answers, is begun anew."""
    nothing_moves_timeout_s: PositiveSeconds = 300.0
    """When no partition moves for this long although there is work, Kafka answers and no worker waits for its sink, the
    program ends with code 70. At least twice each of the three timeouts before: they are the milder cures."""
    worker_backoff_first_s: PositiveSeconds = 0.1
    """Wait before a dead worker is replaced; doubles with each death that follows without progress."""
    worker_backoff_max_s: PositiveSeconds = 10.0
    """Longest wait before a dead worker is replaced."""

    @property
    def ring_capacity_bytes(self) -> int:
        """``ring_bytes``, or its default."""
        return RING_BYTES if self.ring_bytes is None else self.ring_bytes

    def __post_init__(self) -> None:
        if self.dead_letter_topic == self.topic:
            raise ValueError(
                f"dead_letter_topic: expected another topic than the one that is processed, got {self.topic} for both:"
                " its dead letters would be processed too, and make dead letters for ever"
            )
        if self.ring_bytes is not None and self.ring_bytes < 4 * self.max_record_bytes:
            raise ValueError(f"ring_bytes: expected at least 4 x max_record_bytes ({4 * self.max_record_bytes})")
        milder_s = max(self.stuck_timeout_s, self.sink_silence_timeout_s, self.fetch_silence_timeout_s)
        if self.nothing_moves_timeout_s < 2 * milder_s:
            raise ValueError(
                f"nothing_moves_timeout_s: expected at least {2 * milder_s:g}, twice the longest of stuck_timeout_s,"
                " sink_silence_timeout_s and fetch_silence_timeout_s"
            )
