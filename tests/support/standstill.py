"""A stream on the mock cluster that gives up the value ``bad``; sources are what stands before ``/`` in the key."""

import yaml
from confluent_kafka import Consumer, Producer, TopicPartition

from dmpd.cli import dmpctl
from tests.support.mock_cluster import MockCluster
from tests.support.stream_daemon import StreamDaemon, wait_for

TOPIC = "t"
DEAD = "t.dead"
SOURCES = [f"s{n}" for n in range(12)]


class Bench:
    """One cluster with its producer, for one test; ``close`` it."""

    def __init__(self, folder):
        self.folder = folder
        self.cluster = MockCluster()
        self.cluster.topic(TOPIC, 2)
        self.cluster.topic(DEAD, 1)
        self.producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "linger.ms": 1})

    def close(self):
        self.cluster.close()

    def daemon(self, **more):
        settings = {"topic": TOPIC, "dead_letter_topic": DEAD, "group": "g", "batch_records_max": 100} | more
        options = {"invalid": ["bad"]}
        source_of = "tests.support.stream_handlers:first_word"
        return StreamDaemon(self.folder, self.cluster.bootstrap, options=options, source_of=source_of, **settings)

    def produce(self, values, *, partition=0, sources=("s0",)):
        for n, value in enumerate(values):
            self.producer.produce(TOPIC, value, f"{sources[n % len(sources)]}/{n}", partition)
        assert self.producer.flush(30) == 0

    def halt(self, stream):
        """Make partition 0 stand still, with records left in its ring; returns how many were produced."""
        (self.folder / "block0").touch()
        self.produce(["bad"] * 800 + ["good"] * 10, sources=SOURCES)
        wait_for(lambda: picture(stream).get("open_records") == 810, lambda: stream.log)
        (self.folder / "block0").unlink()
        wait_for(lambda: picture(stream).get("state") == "halted", lambda: stream.log)
        return 810

    def committed(self, partition):
        client = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": "g"})
        offset = client.committed([TopicPartition(TOPIC, partition)], 5)[0].offset
        client.close()
        return offset

    def read_all(self, topic, partition=0):
        """Every record that is there now."""
        client = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": "reader"})
        end = client.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
        client.assign([TopicPartition(topic, partition, 0)])
        found = []
        wait_for(lambda: found.extend(client.consume(500, 0.1)) or len(found) >= end, lambda: f"{len(found)} of {end}")
        client.close()
        return found

    def dead_letters(self):
        """All there are: (reason, offset, key)."""
        found = self.read_all(DEAD)
        headers = [dict(one.headers()) for one in found]
        return [
            (h["dmpd-reason"].decode(), int(h["dmpd-offset"]), one.key().decode())
            for h, one in zip(headers, found, strict=True)
        ]

    def config(self, stream):
        """A configuration file for dmpctl."""
        path = self.folder / "dmpd.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "kafka": {"bootstrap_servers": self.cluster.bootstrap},
                    "topics": {"info": TOPIC, "info_dead": DEAD},
                    "cloud_registry": {
                        "health_bind": stream.bind,
                        "stream": {"topic": TOPIC, "dead_letter_topic": DEAD, "group": "g"},
                    },
                }
            )
        )
        return path


def picture(stream, partition=0):
    return stream.status["partitions"].get(str(partition), {})


class Dmpctl:
    """``dmpctl`` in this process; remembers what the last command printed."""

    def __init__(self, config, capsys):
        self._config, self._capsys = str(config), capsys
        self.out = self.err = ""

    def __call__(self, *words):
        """``words`` = command, action, options; returns the exit code."""
        self._capsys.readouterr()
        code = dmpctl.main([*words, "--config", self._config])
        self.out, self.err = self._capsys.readouterr()
        return code
