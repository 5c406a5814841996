"""The threads that read ``dmp.cmd`` and ``dmp.rsp`` for the downlink, and hand what they read to its event loop.

The bridge keeps nothing on a disk. What it must know after a restart stands in Kafka: where it was in ``dmp.cmd``, and,
in ``dmp.rsp``, which of the requests from there on were answered. So responses are read first, from the time of the
oldest request that is not done, and only then requests are handed on.
"""

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.kafka_follow import RecordFollower
from dmpd.runtime.kafka_reader import ReadRecord

READ_S: Final = 0.1
BATCH_RECORDS: Final = 500
RETRY_S: Final = 1.0
CLOCKS_APART_MS: Final = 120_000
"""Responses carry the bridge's time, requests the Kafka broker's."""
_CLOSE_S: Final = 2.0

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Whom the feed feeds. Called on the event loop, in the order of reading."""

    def requests(self, records: Sequence[ReadRecord], *, live: bool) -> None:
        """Records of ``dmp.cmd``; ``live`` = with them all that stood there at the start was handed on."""

    def responses(self, records: Sequence[ReadRecord]) -> None:
        """Records of ``dmp.rsp``."""

    def trouble(self, sentence: str | None) -> None:
        """Kafka does not let us read; None = it does."""

    def failed(self, error: Exception) -> None:
        """A thread died of an error of ours: nothing more comes."""


class Feed:
    """Reads until ``close``. Made on the event loop that gets the records; its methods do not block but ``close``."""

    def __init__(
        self,
        sink: Sink,
        *,
        open_requests: Callable[[], RecordFollower],
        open_responses: Callable[[int], RecordFollower],
    ) -> None:
        """Begin.

        Args:
            sink: Gets the records.
            open_requests: Opens ``dmp.cmd`` where its group stands; may raise UnavailableError, and is tried again.
            open_responses: Opens ``dmp.rsp`` at a time (ms); likewise.
        """
        self._sink = sink
        self._open_requests = open_requests
        self._open_responses = open_responses
        self._loop = asyncio.get_running_loop()
        self._closing = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._positions: dict[int, int] = {}
        self._threads = [threading.Thread(target=self._run, args=(self._run_requests,), name="requests", daemon=True)]
        self._threads[0].start()

    def commit(self, positions: Mapping[int, int]) -> None:
        """Keep these next offsets of ``dmp.cmd``, soon."""
        with self._lock:
            self._positions.update(positions)

    def hold(self, *, held: bool) -> None:
        """Stop reading requests, or go on; responses are always read."""
        if held:
            self._flowing.clear()
        else:
            self._flowing.set()

    def close(self) -> None:
        """End the threads, with a last commit. Blocks for 2 s at most."""
        self._closing.set()
        self._flowing.set()
        deadline_s = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                _log.warning("Kafka: reading of %s did not end in %.0f s", thread.name, _CLOSE_S)

    # --- on the threads

    def _run(self, body: Callable[[], None]) -> None:
        try:
            body()
        except Exception as error:  # told to the loop, which ends the program: it is begun anew
            _log.exception("reading from Kafka failed")
            self._call(lambda error=error: self._sink.failed(error))  # type: ignore[misc]

    def _run_requests(self) -> None:
        follower = self._opened(self._open_requests)
        if follower is None:
            return
        try:
            first = self._first_of_each(follower)
            if not self._catch_up(first):
                return
            self._hand_on(first, live=not follower.behind)
            records: list[ReadRecord] = []
            while not self._closing.is_set():
                if not records:
                    records = follower.read(READ_S, BATCH_RECORDS)
                if records and self._flowing.wait(READ_S):  # held while it read, it keeps them
                    self._hand_on(records, live=not follower.behind)
                    records = []
                self._commit(follower)
            self._commit(follower)
        finally:
            follower.close()

    def _first_of_each(self, follower: RecordFollower) -> list[ReadRecord]:
        """Read until each partition that has something unfinished has said of when it is."""
        found: list[ReadRecord] = []
        missing = set(follower.behind)
        while missing & follower.behind and not self._closing.is_set():
            records = follower.read(READ_S, BATCH_RECORDS)
            found += records
            missing -= {record.partition for record in records}
        return found

    def _catch_up(self, requests: Sequence[ReadRecord]) -> bool:
        """Hand on the responses since the oldest of ``requests``, then leave them to a thread; False = closing."""
        times_ms = [record.timestamp_ms for record in requests if record.timestamp_ms >= 0]
        since_ms = min(times_ms, default=time.time_ns() // 1_000_000) - CLOCKS_APART_MS
        follower = self._opened(lambda: self._open_responses(since_ms))
        if follower is None:
            return False
        while follower.behind and not self._closing.is_set():
            self._read_responses(follower)
        body = functools.partial(self._run_responses, follower)
        thread = threading.Thread(target=self._run, args=(body,), name="responses", daemon=True)
        self._threads.append(thread)
        thread.start()
        return not self._closing.is_set()

    def _run_responses(self, follower: RecordFollower) -> None:
        while not self._closing.is_set():
            self._read_responses(follower)
        follower.close()

    def _read_responses(self, follower: RecordFollower) -> None:
        records = follower.read(READ_S, BATCH_RECORDS)
        if records:
            self._call(lambda: self._sink.responses(records))

    def _opened(self, open_: Callable[[], RecordFollower]) -> RecordFollower | None:
        while not self._closing.is_set():
            try:
                follower = open_()
            except UnavailableError as error:
                sentence = str(error)
                self._call(lambda sentence=sentence: self._sink.trouble(sentence))  # type: ignore[misc]
                self._closing.wait(RETRY_S)
            else:
                self._call(lambda: self._sink.trouble(None))
                return follower
        return None

    def _hand_on(self, records: Sequence[ReadRecord], *, live: bool) -> None:
        self._call(lambda: self._sink.requests(records, live=live))

    def _commit(self, follower: RecordFollower) -> None:
        with self._lock:
            positions, self._positions = self._positions, {}
        if positions:
            follower.commit(positions)

    def _call(self, function: Callable[[], None]) -> None:
        if not self._closing.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)
