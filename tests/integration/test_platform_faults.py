"""The whole platform: what a RAE committed becomes a row, whatever stops in between; a bad message costs itself."""

import json
import time
import uuid
from collections import Counter

import psycopg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from dmpd.model.topics import info_topic
from dmpd.runtime import kafka_admin
from dmpd.runtime.kafka import Producer
from dmpd.runtime.kafka_reader import TopicReader
from dmpd.stream.settings import StreamSettings
from tests.support.platform import LabUnderTest, running_lab, until

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]

RAES, DEVICES = 2, 10
GROUP = StreamSettings().group
PARTS = ("kafka", "postgresql", "mosquitto", "bridge", "cloud-registry")


@pytest.fixture(scope="module")
def lab():
    """One lab for this file: two RAEs with ten devices each, no LAN, so no privileges."""
    with running_lab("--raes", str(RAES), "--devices", str(DEVICES), "--rate", "20", "--no-lan") as found:
        until(lambda: count_rows(found) >= RAES * DEVICES, "a row of every device", 60)
        yield found


def count_rows(lab: LabUnderTest) -> int:
    return lab.query("SELECT count(*) FROM device_session WHERE rae LIKE 'sim-%'")[0][0]


def revs(lab: LabUnderTest) -> int:
    return lab.query("SELECT coalesce(sum(rev), 0)::bigint FROM device_session WHERE rae LIKE 'sim-%'")[0][0]


def committed(lab: LabUnderTest) -> int:
    """What the RAEs have committed; from their own control socket."""
    return int(lab.health()["simulate"]["committed"])


def until_caught_up(lab: LabUnderTest) -> None:
    goal = committed(lab)

    def holds() -> bool:
        try:
            return revs(lab) >= goal
        except psycopg.OperationalError:  # it starts again just now
            return False

    until(holds, f"the database holds the {goal} changes committed by now", 90)


def dead_letters(lab: LabUnderTest) -> Counter[str]:
    """Records of each reason in the dead-letter topic; one that came twice (a kill before the commit) counts once."""
    reader = TopicReader(lab.kafka, "dmp.info.dead", start="beginning")
    try:
        ends = kafka_admin.list_end_offsets(lab.kafka, "dmp.info.dead")
        letters = []
        while len(letters) < sum(ends.values()):
            letters += [dict(record.headers) for record in reader.read(5.0, 1000)]
        reasons = {(h["dmpd-partition"], h["dmpd-offset"]): h["dmpd-reason"].decode() for h in letters}
        return Counter(reasons.values())
    finally:
        reader.close()


@pytest.mark.parametrize("outage_s", [5.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_no_stopped_part_loses_or_invents_anything(lab, outage_s):
    before = dead_letters(lab)
    for part in PARTS:
        goal = committed(lab)
        lab.supervisor.stop(part)
        stopped_s = time.monotonic()
        until(lambda since=stopped_s: time.monotonic() - since >= outage_s, f"{part} is away for {outage_s:g} s", 60)
        assert committed(lab) > goal, "devices went on changing meanwhile"
        lab.supervisor.restart(part)
        until_caught_up(lab)
    assert dead_letters(lab) == before
    verify(lab)


def verify(lab: LabUnderTest) -> None:
    """Let the RAEs stand still and everything arrive; then no record may differ from its store."""
    goal_of_all = committed(lab)
    lab.supervisor.stop("simulate")  # it drains: what is committed is durable in Kafka when it has ended
    try:
        until(lambda: not any(kafka_admin.group_lag(lab.kafka, GROUP, "dmp.info").values()), "no lag", 60)
        assert revs(lab) >= goal_of_all
        verified = lab.ctl("verify", "--stores", str(lab.folder.simulate))
        assert verified.returncode == 0, verified.stdout + verified.stderr
    finally:
        lab.supervisor.restart("simulate")
        until(lambda: lab.health()["simulate"].get("connected") == RAES, "the RAEs are back")


def count_stale(lab: LabUnderTest) -> int:
    return lab.query("SELECT count(*) FROM device_session WHERE stale AND closed_at IS NULL AND absent_at IS NULL")[0][
        0
    ]


def lose_what_waits(lab: LabUnderTest) -> None:
    """What retention does to a cloud that is away for too long: its group goes on at the end of every partition."""
    ends = kafka_admin.list_end_offsets(lab.kafka, "dmp.info")
    places = [TopicPartition("dmp.info", number, end) for number, end in ends.items()]
    admin = AdminClient({"bootstrap.servers": lab.kafka.bootstrap_servers})
    asked = [ConsumerGroupTopicPartitions(GROUP, places)]
    answer = admin.alter_consumer_group_offsets(asked, request_timeout=30)[GROUP].result()
    assert all(place.error is None for place in answer.topic_partitions)


def test_what_the_cloud_lost_comes_back(lab):
    """Records that retention took: a row that sees the gap is asked for, what shows no gap comes by resync."""
    lab.supervisor.stop("cloud-registry")
    goal = committed(lab) + 20
    until(lambda: committed(lab) >= goal, "devices changed while the cloud was away")
    lose_what_waits(lab)
    before = {topic: records(lab, topic) for topic in ("dmp.cmd", "dmp.rsp")}
    lab.supervisor.restart("cloud-registry")
    until(lambda: records(lab, "dmp.cmd") > before["dmp.cmd"], "a row with a gap is asked for", 120)
    until(lambda: records(lab, "dmp.rsp") > before["dmp.rsp"], "its RAE has answered", 120)
    until(lambda: count_stale(lab) == 0, "every row that had a gap is true again", 200)

    done = lab.ctl("resync", "--all", "--json")
    states = {one["rae"]: one["state"] for one in json.loads(done.stdout)}  # those of another test may be in it
    assert {rae: states.get(rae) for rae in ("sim-0001", "sim-0002")} == {"sim-0001": "done", "sim-0002": "done"}
    verify(lab)


def test_a_rae_whose_epoch_is_outranked_raises_it(lab):
    """What a restored image or a cloned disk looks like from here: the cloud knows a later life than the RAE lives."""
    later = lab.query("UPDATE device_session SET epoch = epoch + 1000000 WHERE rae = 'sim-0001' RETURNING epoch")
    (highest,) = max(later)

    def behind() -> int:
        asked = (
            "SELECT count(*) FROM device_session"
            " WHERE rae = 'sim-0001' AND closed_at IS NULL AND absent_at IS NULL AND (epoch <= %s OR stale)"
        )
        return lab.query(asked, highest)[0][0]

    until(lambda: behind() == 0, "every device is told of in an epoch above, and true", 120, said=lambda: str(behind()))
    verify(lab)


def records(lab: LabUnderTest, topic: str) -> int:
    return sum(kafka_admin.list_end_offsets(lab.kafka, topic).values())


BROKEN = {
    "bad JSON": ("malformed", b'{"v":1,"kind":"change"'),
    "not UTF-8": ("text", b'{"v":1,"kind":"change","rae":"\xff"}'),
    "wrong type": ("malformed", {"rev": "seven"}),
    "NUL in text": ("text", {"set": {"name": "a\0b"}}),
    "lone surrogate": ("malformed", {"set": {"name": "\ud800"}}),
    "rev beyond int64": ("range", {"rev": 2**63}),
    "rev below 1": ("range", {"rev": 0}),
    "topic is not the payload's": ("mismatch", {"rae": "somebody-else"}),
    "unknown kind": ("unsupported", {"kind": "prophecy"}),
    "unknown version": ("unsupported", {"v": 2}),
    "empty value": ("empty", b""),
    "tombstone": ("empty", None),
}


def test_broken_messages_cost_exactly_themselves(lab):
    rae = f"broken-{uuid.uuid4().hex[:8]}"
    producer = Producer(lab.kafka, "test")
    refused = []

    def produce(key, value):
        producer.produce("dmp.info", key=key, value=value, on_delivery=lambda error: error and refused.append(error))

    def message(session, **changes):
        body = {"v": 1, "kind": "checkpoint", "rae": rae, "session": session, "epoch": 1, "rev": 1}
        body |= {"at": "2026-11-25T04:35:48.123Z", "record": {"state": "online"}}
        return json.dumps(body | changes).encode()

    good = []
    before = dead_letters(lab)
    for _reason, broken in BROKEN.values():
        session = str(uuid.uuid4())
        good.append(str(uuid.uuid4()))
        key = info_topic(rae, session).encode()
        is_body = isinstance(broken, dict)
        produce(key, message(session, **({"kind": "change", "set": {}} | broken)) if is_body else broken)
        produce(info_topic(rae, good[-1]).encode(), message(good[-1]))
    produce(None, message(good[0]))
    produce(b"dmp/v1/nonsense", message(good[0]))
    assert producer.flush(20) == 0
    assert refused == []

    expected = Counter([*(reason for reason, _ in BROKEN.values()), "no_key", "bad_key"])
    until(lambda: (dead_letters(lab) - before).total() >= expected.total(), "every broken message is a dead letter")
    assert dead_letters(lab) - before == expected
    rows = lab.query("SELECT session::text FROM device_session WHERE rae = %s", rae)
    assert sorted(row[0] for row in rows) == sorted(good)


def test_an_operator_sees_the_parts_and_the_changes(lab):
    status = lab.ctl("status", "--json")
    assert status.returncode == 0, status.stdout + status.stderr
    assert {part["name"]: part["ready"] for part in json.loads(status.stdout)} == {
        "bridge": True,
        "cloud-registry": True,
        "access": True,
        "kafka": True,
        "database": True,
    }
    assert "cloud-registry" in lab.ctl("status").stdout
    seen = lab.ctl("watch", "--rae", "sim-0001", "--count", "3", "--json")
    assert [json.loads(line)["rae"] for line in seen.stdout.splitlines()] == ["sim-0001"] * 3
    assert "rev 1: " in lab.ctl("watch", "--beginning", "--count", "50").stdout
