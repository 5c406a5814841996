"""A handler whose module takes its time: longer than any test waits."""

import time

time.sleep(60)


def make(partition, argument):
    raise AssertionError
