"""A thousand requests while Local Registry, broker and bridge die by kill -9: each runs once at most, each is answered.

Counted where nobody can be mistaken: at the devices. Each launch carries its request's id as DIAL payload.
"""

import json
import random
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime

import pytest
from msgspec import Raw

from dmpd.lab import lan_parts
from dmpd.lab.duts import control
from dmpd.lab.kill import kill
from dmpd.lab.server import ServerError
from dmpd.model.codec import decode_record
from dmpd.model.messages import Request, Response
from dmpd.model.requests import FINAL_OUTCOMES, request_record
from dmpd.model.topics import partition_of
from dmpd.runtime.kafka import Producer
from dmpd.runtime.kafka_follow import Follower
from dmpd.runtime.settings import TopicSettings
from tests.support.platform import LabUnderTest, running_lab, until

pytestmark = [pytest.mark.services, pytest.mark.namespaces, pytest.mark.slow, pytest.mark.timeout(600)]

REQUESTS = 1000
PER_S = 20.0
LIFETIME_S = 120
DUTS = 4
KILLED = ("local-registry-lan", "bridge", "mosquitto")
KILL_EVERY_S = (2.0, 6.0)
SEED = 8
APP = "Netflix"


class Asker:
    """Sends launches and collects every response of ``dmp.rsp``."""

    def __init__(self, lab: LabUnderTest) -> None:
        self._topics = TopicSettings()
        self._responses = Follower(lab.kafka, self._topics.rsp, group="", since_ms=time.time_ns() // 1_000_000)
        self._producer = Producer(lab.kafka, "test")
        self.outcomes: dict[str, list[str]] = defaultdict(list)

    def ask(self, name: str, session: str) -> None:
        args = {"app": Raw(json.dumps(APP)), "payload": Raw(json.dumps(name))}
        request = Request(
            v=1, rae=lan_parts.RAE, session=session, at=datetime.now(UTC), id=name, verb="app.launch", args=args
        )
        record = request_record(request, "op-kill", lifetime_s=LIFETIME_S)
        self._producer.produce(
            self._topics.cmd,
            key=record.key,
            value=record.value,
            headers=record.headers,
            partition=partition_of(lan_parts.RAE, self._responses.partitions),
            on_delivery=_must_be_taken,
        )
        self._producer.poll(0)

    def listen(self, timeout_s: float) -> None:
        self._producer.poll(0)
        for record in self._responses.read(timeout_s, 500):
            message = decode_record(record.key, record.value)[1]
            assert isinstance(message, Response)
            self.outcomes[message.id].append(message.outcome)

    def finals(self) -> dict[str, set[str]]:
        found = {name: {one for one in said if one in FINAL_OUTCOMES} for name, said in self.outcomes.items()}
        return {name: said for name, said in found.items() if said}

    def close(self) -> None:
        self._responses.close()
        self._producer.close()


def _must_be_taken(error: str | None) -> None:
    assert error is None, error


def test_a_thousand_requests_under_kill_9_run_once_at_most_and_are_all_answered():
    dice = random.Random(SEED)
    with running_lab("--lan", "--devices", str(DUTS)) as lab:
        until(lambda: len(sessions(lab)) == DUTS, "all devices have rows", 60)
        targets = sessions(lab)
        asker = Asker(lab)
        try:
            kills = send_and_kill(lab, asker, targets, dice)
            deadline_s = time.monotonic() + LIFETIME_S + 60
            while len(asker.finals()) < REQUESTS and time.monotonic() < deadline_s:
                asker.listen(0.2)
        finally:
            asker.close()
        launched = counted(lab)
    finals = asker.finals()
    silent = [name for name in map(str, range(REQUESTS)) if name not in finals]
    assert silent == [], f"{len(silent)} got no final answer; kills {kills}"
    assert {name: count for name, count in launched.items() if count > 1} == {}, "run more than once"
    tally = Counter("+".join(sorted(said)) for said in finals.values())
    print(f"kills {dict(kills)}, outcomes {dict(tally)}, launched {launched.total()}")
    assert [name for name, said in finals.items() if "done" in said and launched[name] != 1] == []
    assert [name for name, said in finals.items() if said in ({"expired"}, {"refused"}) and launched[name]] == []
    assert [name for name, said in finals.items() if len(said) > 1 and said != {"done", "expired"}] == []
    assert tally["done"] > REQUESTS / 2, tally
    assert kills.total() >= 10
    assert set(kills) == set(KILLED)


def send_and_kill(lab: LabUnderTest, asker: Asker, targets: list[str], dice: random.Random) -> Counter[str]:
    kills: Counter[str] = Counter()
    started_s = time.monotonic()
    kill_at_s = started_s + dice.uniform(*KILL_EVERY_S)
    for number in range(REQUESTS):
        asker.ask(str(number), dice.choice(targets))
        while time.monotonic() < started_s + number / PER_S:
            asker.listen(0.01)
        if time.monotonic() >= kill_at_s:
            kill_at_s = time.monotonic() + dice.uniform(*KILL_EVERY_S)
            part = KILLED[kills.total() % len(KILLED)]
            try:
                kill(lab.folder, part)
            except ServerError:  # it is still down from the last time: the next one's turn comes later
                continue
            kills[part] += 1
    return kills


def sessions(lab: LabUnderTest) -> list[str]:
    rows = lab.query(
        "SELECT session::text FROM device_session WHERE rae = %s AND closed_at IS NULL ORDER BY 1", lan_parts.RAE
    )
    return [session for (session,) in rows]


def counted(lab: LabUnderTest) -> Counter[str]:
    """Launches by request, as the devices counted them."""
    found: Counter[str] = Counter()
    for told in control.ask(lab.folder.duts_socket, "list").values():
        found.update(told["apps"][APP]["payloads"])
    return found
