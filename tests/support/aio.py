"""Run a test that is a coroutine function, in an event loop of its own."""

import asyncio
import functools
import time
from collections.abc import Callable


def async_test(function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        asyncio.run(function(*args, **kwargs))

    return run


async def until(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait for ``condition``, looking 200 times a second; the assertion names what did not come.

    Only what never comes takes the whole time, so it is for the busiest machine.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.005)
