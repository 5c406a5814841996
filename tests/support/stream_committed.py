"""Watches what a group has committed, from outside, and remembers each time that it went back."""

import threading

from confluent_kafka import Consumer, TopicPartition

_EVERY_S = 0.05


class CommittedWatch:
    """A thread with a client that is no member of the group. ``went_back``: (partition, from, to)."""

    def __init__(self, bootstrap, group, topic, partitions):
        self.went_back = []
        self.looks = 0
        self._client = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        self._asked = [TopicPartition(topic, n) for n in range(partitions)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def _run(self):
        highest = {}
        while not self._stopping.wait(_EVERY_S):
            for one in self._client.committed(self._asked, 10):
                before = highest.get(one.partition, -1)
                if 0 <= one.offset < before:
                    self.went_back.append((one.partition, before, one.offset))
                highest[one.partition] = max(before, one.offset)
            self.looks += 1
