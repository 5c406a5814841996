"""Partitions that stand still: halting them, and what an operator's verbs do. Parent's thread only."""

import logging
import os
from collections.abc import Mapping
from typing import Final

from dmpd.runtime.health import ActionRefusedError
from dmpd.stream import metrics
from dmpd.stream.control import Control, Request, Result
from dmpd.stream.drain import remainder
from dmpd.stream.frames import Position
from dmpd.stream.invalid_window import RECORDS
from dmpd.stream.outgoing import OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.workers import Workers

_log = logging.getLogger(__name__)
_WAITS_LONG_S: Final = 15.0
_SKIP_BACKLOG_MAX: Final = 1000
"""Skipped records that wait for the producer: beyond this it is given time, so that other partitions are heard."""

Partitions = Mapping[int, Partition]


class Operations:
    """Owns nothing but the way to do it. ``tend`` once per turn, after the workers were heard."""

    def __init__(self, workers: Workers, outgoing: OutgoingRecords, control: Control) -> None:
        self._workers = workers
        self._outgoing = outgoing
        self._control = control

    def tend(self, partitions: Partitions, *, is_draining: bool) -> None:
        """Halt who is due, go on skipping, do what was asked for. Blocks until a halted partition's worker is dead."""
        for partition in partitions.values():
            if partition.standstill.is_due:
                self._halt(partition)
            if partition.standstill.to_skip is not None:
                self._skip(partition)
        self._control.serve(lambda request: self._carry_out(request, partitions, is_draining=is_draining))

    def _halt(self, partition: Partition) -> None:
        """The worker dies, since it knows more of the ring than it may still handle. What it is in is done again."""
        self._workers.silence(partition)
        partition.standstill.halt()
        metrics.HALTS.inc()
        _log.error("%s", why_halted(partition))

    def _skip(self, partition: Partition) -> None:
        to_skip = partition.standstill.to_skip
        assert to_skip is not None
        while to_skip and self._outgoing.backlog < _SKIP_BACKLOG_MAX:
            first, records, end = to_skip.popleft()
            for nth in range(first.nth, first.nth + records):
                self._outgoing.skip(partition, Position(first.frame, nth))
            partition.release(Position(end, 0))
        if not to_skip:
            partition.release(Position(partition.ring.published, 0))  # what was over the size limit is behind us too
            partition.standstill.go_on()
            _log.warning("partition %d: its ring is skipped; it goes on", partition.number)

    def _carry_out(self, request: Request, partitions: Partitions, *, is_draining: bool) -> Mapping[int, Result]:
        """Raises ``ActionRefusedError``."""
        if is_draining:
            raise ActionRefusedError(409, f"pid {os.getpid()} is draining: it takes no more orders")
        number = request.target.partition
        if number is not None and number not in partitions:
            owned = ", ".join(map(str, sorted(partitions))) or "none"
            raise ActionRefusedError(
                409,
                f"partition {number} is not owned here (pid {os.getpid()} owns {owned}): ask the instance that owns it",
            )
        chosen = list(partitions) if number is None else [number]
        act = {"pause": self._pause, "resume": self._resume, "skip": self._begin_skip}[request.verb]
        results = {n: act(partitions[n]) for n in chosen}
        for n, result in results.items():
            if result.changed:
                _log.warning("partition %d: %s, by an operator", n, result.said)
        return results

    def _pause(self, partition: Partition) -> Result:
        if partition.standstill.is_paused:
            return Result(changed=False, said="was paused already")
        partition.standstill.is_paused = True
        return Result(changed=True, said="paused: nothing is fetched until resume, a restart or a rebalance")

    def _resume(self, partition: Partition) -> Result:
        before = partition.standstill.state
        if before == "skipping":
            return Result(changed=False, said="is being skipped, and goes on by itself then")
        partition.standstill.is_paused = False
        if before == "halted":
            partition.standstill.go_on()
        if before == "running" and partition.waits_for is not None:
            return Result(changed=False, said=f"waits for its sink and goes on by itself: {partition.waits_for}")
        if before == "running":
            return Result(changed=False, said="was not standing still")
        return Result(changed=True, said=f"goes on (was {before})")

    def _begin_skip(self, partition: Partition) -> Result:
        if partition.standstill.state != "halted":
            why = f"waits for its sink: {partition.waits_for}" if partition.waits_for else f"is {partition.state}"
            return Result(changed=False, said=f"{why}: only a halted partition is skipped")
        stretches = partition.ledger.unreleased()
        partition.standstill.skip(stretches)
        count = sum(stretch.records for stretch in stretches)
        return Result(changed=True, said=f"skipping {count} records: they become dead letters with reason skipped")


def why_halted(partition: Partition) -> str:
    """The sentence of the alarm: what is wrong, and what to do."""
    verdicts = partition.standstill.verdicts
    assert verdicts is not None
    sources = f"{verdicts.sources} sources ({', '.join(verdicts.examples)}, ...)"
    return (
        f"partition {partition.number} is halted at offset {partition.ledger.next_offset or 0}: of its last {RECORDS}"
        f" records {verdicts.invalid} are invalid, from {sources};"
        " look at dmpctl dead-letters list, then say dmpctl stream resume or skip"
    )


def degraded_reasons(partitions: Partitions, now_s: float) -> list[str]:
    """Why the program is degraded by what stands still; empty = it is not."""
    return [*_halted_reasons(partitions), *_waiting_reasons(partitions, now_s)]


def _waiting_reasons(partitions: Partitions, now_s: float) -> list[str]:
    """What workers say of their sinks: at once if it needs a person, else after a while. Once for all that say it."""
    saying: dict[str, list[str]] = {}
    for number, one in sorted(partitions.items()):
        if one.waits_for is not None and (one.state == "halted" or one.waiting_s(now_s) > _WAITS_LONG_S):
            saying.setdefault(one.waits_for, []).append(str(number))
    return [
        f"{'partition' if len(numbers) == 1 else 'partitions'} {', '.join(numbers)}: the sink takes nothing: {detail}"
        for detail, numbers in saying.items()
    ]


def _halted_reasons(partitions: Partitions) -> list[str]:
    halted = [str(number) for number, one in sorted(partitions.items()) if one.standstill.is_halted]
    if not halted:
        return []
    which = f"partition {halted[0]} is" if len(halted) == 1 else f"partitions {', '.join(halted)} are"
    return [f"{which} halted, most of the last records are invalid: see dmpctl stream status"]


def say_what_is_left(partitions: Partitions) -> None:
    """At the end of a drain: what halted partitions give back."""
    halted = [one for one in partitions.values() if one.standstill.is_halted]
    if halted:
        _log.warning("halted partitions are left as they are; back to Kafka: %s", remainder(halted))
