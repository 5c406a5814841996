"""How many records per second go through parent, rings and workers: on the mock cluster, so the client's side only.

PYTHONPATH=. .venv/bin/python tests/bench/bench_stream.py [RECORDS]
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer

from tests.support.mock_cluster import MockCluster
from tests.support.stream_daemon import StreamDaemon, wait_for

PARTITIONS = 4
VALUE_BYTES = 300


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


def main():
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 400_000
    cluster = MockCluster()
    cluster.topic("t", PARTITIONS)
    cluster.topic("d", 1)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "compression.type": "lz4", "linger.ms": 20})
    for n in range(records):
        producer.produce("t", b"%0300d" % n, b"key-%d" % n, n % PARTITIONS, headers=[("mqtt-received-at", b"x" * 24)])
        if n % 10_000 == 0:
            producer.poll(0)
    producer.flush(60)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"topic": "t", "dead_letter_topic": "d", "group": "g"}
        handler = "tests.bench.bench_stream:swallow"
        with StreamDaemon(folder, cluster.bootstrap, handler=handler, **settings) as stream:
            wait_for(lambda: stream.status["state"] == "ready", lambda: stream.log)
            pid, started_s, cpu_before_s = stream.process.pid, time.monotonic(), cpu_s(stream.process.pid)

            def done():
                offsets = [p["next_offset"] or 0 for p in stream.status["partitions"].values()]
                return sum(offsets) >= records

            wait_for(done, lambda: f"{stream.status} {stream.log}", timeout_s=120)
            took_s = time.monotonic() - started_s
            result = {
                "records": records,
                "records_per_s": round(records / took_s),
                "parent_cpu_us_per_record": round((cpu_s(pid) - cpu_before_s) / records * 1e6, 2),
                "parent_rss_mib": rss_mib(pid),
                "worker_rss_mib": rss_mib(stream.worker_pid(0)),
            }
            stream.terminate()
            stream.exit_code()
    cluster.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
