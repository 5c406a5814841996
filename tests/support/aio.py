"""Run a test that is a coroutine function, in an event loop of its own."""

import asyncio
import functools


def async_test(function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        asyncio.run(function(*args, **kwargs))

    return run
