"""One worker process, seen from the parent: pidfd and channel. Made by ``start``, ended by a confirmed death."""

import os
import select
import signal
import time
from typing import Final

from dmpd.stream import channel, death
from dmpd.stream.channel import ParentEnd, State
from dmpd.stream.fork_server import Fork, ForkServer
from dmpd.stream.watchdog import Watchdog

DEATH_TIMEOUT_S: Final = 10.0
"""A killed process that is not dead by then hangs in the kernel; nobody may take its place."""


class WorkerUndeadError(Exception):
    """A killed worker does not die: going on would mean two writers for one partition."""


class WorkerLife:
    """Owns the pidfd and the parent's end of the channel. No call blocks but ``confirm_death``."""

    def __init__(self, pid: int, pidfd: int, end: ParentEnd, watchdog: Watchdog) -> None:
        self.pid: Final = pid
        self.pidfd: Final = pidfd
        self.channel: Final = end
        self.state: State | None = None
        self.detail = ""
        """What it said of its failure, or of what it waits for."""
        self.killed_because = ""
        """Why we killed it; empty = we did not."""
        self.status: int | None = None
        """How it ended, as ``waitpid`` gives it; known after its death, if at all."""
        self._oom_kills_before: Final = death.oom_kills()
        self.told = -1
        """Where it knows the ring to be published to."""
        self.told_records_max = self.told_coming = 0
        self.widest_told = 0
        """It may be in a batch as wide as this, however narrow what it was told since."""
        self.watchdog: Final = watchdog
        self.was_ready = False
        self.has_released = False
        self.has_closed = False
        """Its end of the channel is closed: it is dead, or about to be."""
        self.look_at_s = 0.0

    @classmethod
    def start(cls, server: ForkServer, request: Fork, *, ring_fd: int, watchdog: Watchdog) -> "WorkerLife":
        """Fork one. Raises ``ForkServerError``, and nothing is left."""
        ours, theirs = channel.pair()
        try:
            pid, pidfd = server.fork(request, ring_fd=ring_fd, channel=theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(pid, pidfd, ParentEnd(ours), watchdog)

    def tell_published(self, position: int, records_max: int, coming: int) -> None:
        """Tell it how far it may read and how wide, if it does not know; while its queue is full, call again.

        Of ``coming`` alone only its beginning and its end are worth a message: somebody may wait for it.
        """
        is_same = records_max == self.told_records_max and (coming > 0) == (self.told_coming > 0)
        if is_same and position <= self.told:
            return
        if self.channel.publish(position, records_max, coming):
            self.told, self.told_records_max, self.told_coming = position, records_max, coming
            self.widest_told = max(self.widest_told, records_max)

    def shows_death(self, now_s: float) -> bool:
        """Whether to confirm its death. Cheap: mostly the channel shows it; the pidfd is asked once a second.

        A process that the handler started could hold the channel open beyond the worker's death.
        """
        if self.has_closed:
            return True
        if now_s < self.look_at_s:
            return False
        self.look_at_s = now_s + 1.0
        return self.is_dead()

    def is_dead(self) -> bool:
        return _is_readable(self.pidfd, 0)

    def kill(self) -> None:
        """Send KILL; a dead one takes no harm (a pidfd never names another process)."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def condemn(self, why: str) -> None:
        """Kill it for what it does; its death shows like any other."""
        self.killed_because = why
        self.has_closed = True
        self.kill()

    @property
    def how_ended(self) -> str:
        """After its death and ``status``, as a sentence."""
        memory_ran_out = death.oom_kills() > self._oom_kills_before
        return death.sentence(
            self.status, killed_because=self.killed_because, said=self.detail, memory_ran_out=memory_ran_out
        )

    @property
    def accuses(self) -> bool:
        """After its death: whether a record may have done it.

        Not before its handler was made, nor for a broken ring, nor while it waited for its sink, nor if nobody knows
        how it ended (its fork server died). One that we killed for what it did is no such case, whatever it said last.
        """
        if not self.was_ready or self.state == "corrupted":
            return False
        return self.killed_because != "" or (self.status is not None and self.state not in channel.WAITING)

    def confirm_death(self, timeout_s: float = DEATH_TIMEOUT_S) -> None:
        """Block until it is dead. Raises ``WorkerUndeadError``. Then its channel can be read to its end."""
        if not _is_readable(self.pidfd, timeout_s):
            raise WorkerUndeadError(f"worker {self.pid} is not dead {timeout_s:g} s after KILL")

    def await_end(self, deadline_s: float) -> None:
        """After its channel was closed: wait until it left by itself; killed at ``deadline_s`` (monotonic). Blocks."""
        if not _is_readable(self.pidfd, max(0.0, deadline_s - time.monotonic())):
            self.kill()
            self.confirm_death()
        self.close()

    def close(self) -> None:
        """After a confirmed death."""
        self.channel.close()
        os.close(self.pidfd)


def _is_readable(fd: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))
