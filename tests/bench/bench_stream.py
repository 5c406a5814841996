"""How many records per second go through parent, rings and workers, beside a bare loop: on the client's mock cluster.

The stream's time includes what the bare loop's does not: joining is over, but rings and first fetch are counted.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from tests.bench.report import figure, publish
from tests.support.mock_cluster import MockCluster
from tests.support.stream_daemon import StreamDaemon, wait_for

PARTITIONS = 4
RUNS = 3


class Swallow:
    """Handles by forgetting; what remains is the stream's own cost."""

    def handle(self, records, output):
        return

    def close(self):
        return


def swallow(partition, argument):
    return Swallow()


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid):
    [line] = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return round(int(line.split()[1]) / 1024, 1)


def produce(cluster, records):
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "compression.type": "lz4", "linger.ms": 20})
    for n in range(records):
        producer.produce("t", b"%0300d" % n, b"key-%d" % n, n % PARTITIONS, headers=[("mqtt-received-at", b"x" * 24)])
        if n % 10_000 == 0:
            producer.poll(0)
    producer.flush(60)


def bare_loop(cluster, records, run):
    """Reference: ``consume`` with the stream's client settings, touching key, value and offset; records per second."""
    settings = {
        "bootstrap.servers": cluster.bootstrap,
        "group.id": f"bare-{run}",
        "enable.auto.commit": False,
        "queued.min.messages": 5000,
        "queued.max.messages.kbytes": 16_384,
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 50,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition("t", n, OFFSET_BEGINNING) for n in range(PARTITIONS)])
    seen, started_s = 0, None
    while seen < records:
        for message in consumer.consume(1000, 0.1):
            started_s = started_s or time.monotonic()
            touched = message.key(), message.value(), message.offset()
            assert None not in touched
            seen += 1
    rate = records / (time.monotonic() - started_s)
    consumer.close()
    return rate


def stream(cluster, records, run):
    """Parent, rings and workers with an empty handler, from ready to the last record; a dict of figures."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"topic": "t", "dead_letter_topic": "d", "group": f"g-{run}"}
        handler = "tests.bench.bench_stream:swallow"
        with StreamDaemon(folder, cluster.bootstrap, handler=handler, **settings) as daemon:
            wait_for(lambda: daemon.status["state"] == "ready", lambda: daemon.log)
            pid, started_s, cpu_before_s = daemon.process.pid, time.monotonic(), cpu_s(daemon.process.pid)

            def done():
                offsets = [p["next_offset"] or 0 for p in daemon.status["partitions"].values()]
                return sum(offsets) >= records

            wait_for(done, lambda: f"{daemon.status} {daemon.log}", timeout_s=120)
            took_s = time.monotonic() - started_s
            found = {
                "rate": records / took_s,
                "parent_cpu_us": (cpu_s(pid) - cpu_before_s) / records * 1e6,
                "parent_rss_mib": rss_mib(pid),
                "worker_rss_mib": rss_mib(daemon.worker_pid(0)),
            }
            daemon.terminate()
            daemon.exit_code()
    return found


def main():
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 400_000
    cluster = MockCluster()
    cluster.topic("t", PARTITIONS)
    cluster.topic("d", 1)
    produce(cluster, records)
    bare, ours = [], []
    for run in range(RUNS):
        bare.append(bare_loop(cluster, records, run))
        ours.append(stream(cluster, records, run))
    cluster.close()
    publish(
        "stream",
        [
            figure("path_mock", "records/s", [one["rate"] for one in ours], reference=bare),
            figure("parent_cpu", "us per record", [one["parent_cpu_us"] for one in ours]),
            figure("parent_rss", "MiB", [one["parent_rss_mib"] for one in ours]),
            figure("worker_rss", "MiB", [one["worker_rss_mib"] for one in ours]),
        ],
    )


if __name__ == "__main__":
    main()
