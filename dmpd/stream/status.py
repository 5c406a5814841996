"""What the loop says of itself, for ``/status``: written by the loop's thread, read by any other."""

from typing import Any

from dmpd.stream import metrics
from dmpd.stream.partition_metrics import PartitionMetrics
from dmpd.stream.settings import StreamSettings


class StreamStatus:
    """Holds the newest picture of a running stream. Give it to ``run`` and its ``snapshot`` to a health server.

    The picture is replaced whole, never changed in place, so a reader needs no lock.
    """

    def __init__(self) -> None:
        self._by_partition = PartitionMetrics()
        self._picture: dict[str, Any] = {"topic": None, "group": None, "lag": None, "partitions": {}}

    def snapshot(self) -> dict[str, Any]:
        """The newest picture.

        ``topic``, ``group``, ``lag`` (records, all partitions; null = not known), ``commit_unanswered_s``, and by
        partition: ``lag``, ``lag_s`` and ``eta_s`` (what they mean: ``lag.Lag``), ``next_offset`` (next to commit),
        ``committed``, ``open_records`` (in the ring, not passed), ``ring_used_bytes``, ``oldest_age_s`` (of what is not
        released, in the ring; 0 = nothing), ``paused`` (not fetched now, for whatever reason), ``paused_s`` (so far, in
        this assignment), ``worker_pid``, ``restarts``, ``dead_letters``, ``lost_offsets`` (gone by retention before we
        came), ``state`` (of ``standstill``; ``waiting`` or ``halted`` as the worker says of its sink), ``waits_for``
        (why the sink takes nothing, in the worker's words; null = it does not wait), ``halted_by`` (the verdicts that
        halted it, or null).
        """
        return self._picture

    def publish(
        self, settings: StreamSettings, partitions: dict[int, dict[str, Any]], *, commit_unanswered_s: float
    ) -> None:
        """Replace the picture, and set the gauges that show the same. The loop's thread only."""
        lags = [picture["lag"] for picture in partitions.values()]
        self._picture = {
            "topic": settings.topic,
            "group": settings.group,
            "lag": None if None in lags else sum(lags),
            "commit_unanswered_s": round(commit_unanswered_s, 3),
            "partitions": {str(number): picture for number, picture in partitions.items()},
        }
        metrics.COMMIT_UNANSWERED.set(commit_unanswered_s)
        states = [picture["state"] for picture in partitions.values()]
        metrics.PAUSED.set(sum(p["paused"] and p["state"] in ("running", "waiting") for p in partitions.values()))
        metrics.HALTED.set(sum(state in ("halted", "skipping") for state in states))
        metrics.WAITING.set(states.count("waiting"))
        metrics.HELD.set(states.count("paused"))
        self._by_partition.show(partitions)
