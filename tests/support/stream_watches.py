"""What a group does, watched from outside: clients on threads of their own that are no members of it."""

import threading
import time

from confluent_kafka import OFFSET_END, Consumer, TopicPartition

_EVERY_S = 0.05
_WAIT_S = 0.02


class _Watch:
    """A thread with a client, for the time of a ``with``; ``_run`` goes on until ``_stopping``."""

    def __init__(self, bootstrap, group):
        self._client = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()
        self._client.close()


class CommittedWatch(_Watch):
    """What ``group`` has committed. ``went_back``: (partition, from, to), each time that it did."""

    def __init__(self, bootstrap, group, topic, partitions):
        super().__init__(bootstrap, group)
        self.went_back = []
        self.looks = 0
        self._asked = [TopicPartition(topic, n) for n in range(partitions)]

    def _run(self):
        highest = {}
        while not self._stopping.wait(_EVERY_S):
            for one in self._client.committed(self._asked, 10):
                before = highest.get(one.partition, -1)
                if 0 <= one.offset < before:
                    self.went_back.append((one.partition, before, one.offset))
                highest[one.partition] = max(before, one.offset)
            self.looks += 1


class Bystander(_Watch):
    """A bare consumer of the same partitions, in no group: how long the machine alone keeps one that reads waiting."""

    def __init__(self, bootstrap, topic, partitions):
        super().__init__(bootstrap, f"{topic}-bystander")
        self.longest_wait_s = 0.0
        self._client.assign([TopicPartition(topic, n, OFFSET_END) for n in range(partitions)])

    def _run(self):
        last_s = {}
        while not self._stopping.is_set():
            messages, now_s = self._client.consume(1000, _WAIT_S), time.monotonic()
            for number in {message.partition() for message in messages if message.error() is None}:
                self.longest_wait_s = max(self.longest_wait_s, now_s - last_s.get(number, now_s))
                last_s[number] = now_s
