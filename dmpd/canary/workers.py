"""The runner's side of the crowd's processes: starts them, gives orders to all at once, ends them."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from dmpd.canary.crowd import Job, Leftover
from dmpd.canary.crowd_process import LINE_BYTES_MAX, Answer, Order

_T = TypeVar("_T")
_END_S: Final = 2.0

_answers: Final = msgspec.json.Decoder(Answer)


class CrowdFailedError(Exception):
    """A process of the crowd died, or could not do what it was told; says which and why."""


class Worker:
    """One process. ``order`` one at a time."""

    def __init__(self, job: Job, on_progress: Callable[[Mapping[str, int]], None]) -> None:
        self.job = job
        self._on_progress = on_progress
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and have it read its certificates. Raises ``CrowdFailedError``."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dmpd.canary.crowd_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        await self.order("prepare", type(None), job=self.job)

    async def order(
        self,
        what: str,
        result: type[_T],
        *,
        job: Job | None = None,
        leftovers: Sequence[Leftover] = (),
        interval_s: float = 1.0,
    ) -> _T:
        """Have it done, and return its result. Raises ``CrowdFailedError``."""
        process = self._process
        if process is None:
            raise CrowdFailedError(f"{self._name}: {what}: it does not run")
        assert process.stdin is not None
        assert process.stdout is not None
        order = Order(do=what, job=job, leftovers=list(leftovers), interval_s=interval_s)
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            await process.stdin.drain()
        except OSError as error:
            raise CrowdFailedError(f"{self._name}: {what}: {error}") from error
        while line := await process.stdout.readline():
            answer = _answers.decode(line)
            if answer.progress is not None:
                self._on_progress(answer.progress)
            elif answer.error is not None and answer.done == what:
                raise CrowdFailedError(f"{self._name}: {what}: {answer.error}")
            elif answer.done == what:  # or the end of an order that nobody waits for any more
                return msgspec.convert(answer.result, result)
        raise CrowdFailedError(f"{self._name} ended while it should {what}")

    async def stop(self) -> None:
        """End it, at once if it does not end by itself."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def _name(self) -> str:
        pid = self._process.pid if self._process is not None else 0
        return f"the crowd's process {pid} (canary-{self.job.plan.first:04} to {self.job.plan.last:04})"


class Workers:
    """Several processes under one order."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._progress: dict[int, Mapping[str, int]] = {}
        self._workers = [Worker(job, self._noter(index)) for index, job in enumerate(jobs)]

    @property
    def progress(self) -> dict[str, int]:
        """Sums over the processes."""
        found: dict[str, int] = {}
        for one in self._progress.values():
            for name, value in one.items():
                found[name] = found.get(name, 0) + value
        return found

    async def start(self) -> None:
        await asyncio.gather(*(worker.start() for worker in self._workers))

    async def order(self, what: str, result: type[_T], *, interval_s: float = 1.0) -> list[_T]:
        """To all at once. Raises ``CrowdFailedError``, when nobody listens to any of them any more."""
        orders = [asyncio.ensure_future(worker.order(what, result, interval_s=interval_s)) for worker in self._workers]
        try:
            return list(await asyncio.gather(*orders))
        finally:
            for one in orders:
                one.cancel()
            await asyncio.gather(*orders, return_exceptions=True)

    async def sweep(self, leftovers: Sequence[Leftover]) -> int:
        """By the first process."""
        return await self._workers[0].order("sweep", int, leftovers=leftovers)

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    def _noter(self, index: int) -> Callable[[Mapping[str, int]], None]:
        def note(progress: Mapping[str, int]) -> None:
            self._progress[index] = progress

        return note
