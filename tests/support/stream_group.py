"""Several instances of a recording stream under a steady load: what the tests of rebalances and drains share."""

import os
import signal
import threading
import time
from contextlib import ExitStack

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support.stream_daemon import StreamDaemon, wait_for
from tests.support.stream_record import HANDLER, read_lives
from tests.support.stream_rules import violations

_TICK_S = 0.02
_KEYS = 5


class SteadyLoad:
    """Produces to every partition at ``per_s`` records per second and partition, in a thread, until ``stop``."""

    def __init__(self, bootstrap, topic, partitions, *, per_s=50):
        self.counts = dict.fromkeys(range(partitions), 0)
        self._topic = topic
        self._per_s = per_s
        self._client = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 1}
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def send(self, count):
        """``count`` records to each partition, now."""
        for partition in self.counts:
            for _ in range(count):
                nth = self.counts[partition]
                key = f"p{partition}k{nth % _KEYS}"
                self._client.produce(self._topic, str(nth // _KEYS), key, partition)
                self.counts[partition] += 1
            self._client.poll(0)

    def stop(self):
        """Stop, and wait until Kafka has all of it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        assert self._client.flush(60) == 0

    def _run(self):
        began_s, sent = time.monotonic(), 0
        while not self._stopping.wait(_TICK_S):
            wanted = int((time.monotonic() - began_s) * self._per_s)
            self.send(wanted - sent)
            sent = wanted


class Group:
    """Instances by name. All are ended when the context is left."""

    def __init__(self, folder, bootstrap, topic, partitions, **settings):
        self.folder = folder
        self.topic = topic
        self.partitions = partitions
        self.bootstrap = bootstrap
        self.settings = {"topic": topic, "dead_letter_topic": f"{topic}-dead", "group": topic} | settings
        self.instances = {}
        self._stack = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.instances.values():
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGCONT)
        self._stack.close()

    def prepare(self, name, *, options=None, **settings):
        """An instance that somebody else starts."""
        options = {"instance": name} | (options or {})
        return StreamDaemon(
            self.folder, self.bootstrap, name=name, handler=HANDLER, options=options, **(self.settings | settings)
        )

    def start(self, name, *, options=None, **settings):
        daemon = self.prepare(name, options=options, **settings)
        self.instances[name] = self._stack.enter_context(daemon)
        return daemon

    def log(self):
        return "\n".join(f"--- {name}\n{one.log}" for name, one in self.instances.items())

    def end(self, load, *names):
        """All is handled and nothing broken; who is left drains, and what is committed is what was produced."""
        load.stop()
        self.check_all_handled(load.counts)
        for name in names:
            self.instances[name].terminate()
        for name in names:
            assert self.instances[name].exit_code() == 0, self.log()
        assert self.committed() == load.counts

    def owned(self, name):
        return set(map(int, self.instances[name].status["partitions"]))

    def wait_shared(self, *names, timeout_s=40.0):
        """Until ``names`` own all partitions among them, evenly, as they themselves say."""

        def is_shared():
            owned = [self.owned(name) for name in names]
            sizes = [len(one) for one in owned]
            return sum(sizes) == self.partitions == len(set().union(*owned)) and max(sizes) - min(sizes) <= 1

        wait_for(is_shared, self.log, timeout_s=timeout_s)

    def wait_flowing(self, since_s, *, by="", partitions=None, timeout_s=40.0):
        """Until each partition was handled after ``since_s``; returns by partition when."""
        wanted = range(self.partitions) if partitions is None else partitions
        found = {}

        def all_flow():
            for one in read_lives(self.folder):
                if one.at_s > since_s and one.life.startswith(by):
                    found.setdefault(one.partition, one.at_s)
            return found.keys() >= set(wanted)

        wait_for(all_flow, self.log, timeout_s=timeout_s)
        return {partition: found[partition] for partition in wanted}

    def check_all_handled(self, produced, *, timeout_s=40.0):
        """Wait until every produced record was handled; then nothing of the rules may be broken."""

        def is_complete():
            found = {(one.partition, one.offset) for one in read_lives(self.folder)}
            return len(found) >= sum(produced.values())

        wait_for(is_complete, self.log, timeout_s=timeout_s)
        assert violations(read_lives(self.folder), produced) == []

    def committed(self):
        client = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.topic})
        asked = [TopicPartition(self.topic, n) for n in range(self.partitions)]
        offsets = {one.partition: one.offset for one in client.committed(asked, 10)}
        client.close()
        return offsets


def freeze(daemon):
    """The parent alone stands still; its workers go on with what they have."""
    os.kill(daemon.process.pid, signal.SIGSTOP)


def thaw(daemon):
    os.kill(daemon.process.pid, signal.SIGCONT)
