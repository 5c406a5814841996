"""The load: what RAEs say of their devices, in dmpd's format and, the same at the same size, in the peers'."""

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from dmpd.model.topics import partition_of
from tests.bench.cloud_registry.servers import PARTITIONS

EPOCH = 1_764_043_200_123
STATES = ("online", "offline", "asleep", "online")
"""Of rev modulo 4, as in the peers' load ("updating" there): three of four updates change the state."""
_RAES_MIN = 200


class Fleet:
    """``count`` device sessions on at least 200 RAEs. Everything in a record follows from (session, rev)."""

    def __init__(self, count: int, seed: int) -> None:
        chance = random.Random(seed)
        raes = max(_RAES_MIN, count // 40)
        self.count = count
        self.sessions = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(count)]
        self.raes = [f"rae-{number % raes if count == raes else chance.randrange(raes):05d}" for number in range(count)]
        self.esns = [f"NFDEV-{chance.getrandbits(48):012X}" for _ in range(count)]
        self.macs = [":".join(f"{chance.randrange(256):02x}" for _ in range(6)) for _ in range(count)]
        self.ips = [f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}" for _ in range(count)]
        self.keys = [f"dmp/v1/{rae}/{session}/info" for rae, session in zip(self.raes, self.sessions, strict=True)]
        self.partitions = [partition_of(rae, PARTITIONS) for rae in self.raes]

    def attributes(self, device: int, rev: int) -> str:
        """All eight, three of them new."""
        return (
            f'{{"fw":"7.{rev}","model":"m{device % 37}","sdk":"2025.{device % 9}",'
            f'"hdr":{"true" if device & 1 else "false"},"temp":{30 + rev % 40},"uptime":{rev * 60},'
            f'"wifi":"-{40 + device % 40}dBm","lane":"{device % 500}"}}'
        )

    def dmpd(self, device: int, rev: int, at: str) -> bytes:
        """The first revision is a checkpoint, every other a change with all attributes."""
        head = (
            f'"rae":"{self.raes[device]}","session":"{self.sessions[device]}","epoch":{EPOCH},"at":"{at}","rev":{rev}'
        )
        content = f'"state":"{STATES[rev & 3]}","attributes":{self.attributes(device, rev)}'
        if rev > 1:
            return f'{{"v":1,"kind":"change",{head},"seq":{rev},"set":{{{content}}},"cause":"probe"}}'.encode()
        interfaces = f'"interfaces":[{{"mac":"{self.macs[device]}","ip4":"{self.ips[device]}"}}]'
        record = f'"esn":"{self.esns[device]}",{interfaces},{content}'
        return f'{{"v":1,"kind":"checkpoint",{head},"seq":{rev},"record":{{{record}}}}}'.encode()

    def peer(self, device: int, rev: int, at: str) -> bytes:
        return (
            f'{{"v":1,"kind":"{"checkpoint" if rev % 10 == 0 else "change"}","rae":"{self.raes[device]}",'
            f'"device_session_id":"{self.sessions[device]}","rev":{rev},"at":"{at}",'
            f'"record":{{"state":"{STATES[rev & 3]}","esn":"{self.esns[device]}","mac":"{self.macs[device]}",'
            f'"ip":"{self.ips[device]}","attributes":{self.attributes(device, rev)}}}}}'
        ).encode()

    def expected(self, device: int, rev: int) -> tuple[object, ...]:
        """What the row says after ``rev``: rae, rev, state, esn, attribute fw."""
        return self.raes[device], rev, STATES[rev & 3], self.esns[device], f"7.{rev}"


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Backlog:
    """``records`` updates of a fleet in random order, 1 % of them repeating an older revision of their session.

    Iterate it once; then ``revs`` holds the newest revision of each device, ``bad`` how many records were spoilt.
    """

    def __init__(self, fleet: Fleet, records: int, seed: int, *, bad_share: float = 0.0) -> None:
        self.fleet = fleet
        self.records = records
        self.revs = [0] * fleet.count
        self.bad = int(records * bad_share)
        self._seed = seed

    def updates(self) -> Iterator[tuple[int, int, str, bool]]:
        """Device, revision, time, and whether this record is to be spoilt."""
        chance = random.Random(self._seed)
        spoilt = set(chance.sample(range(self.records), self.bad))
        revs = self.revs
        revs[:] = [0] * self.fleet.count
        for number in range(self.records):
            device = chance.randrange(self.fleet.count)
            moment = at(1_760_000_000 + number * 0.001)
            if number in spoilt:
                yield device, max(revs[device], 1), moment, True
            elif revs[device] > 1 and chance.random() < 0.01:
                yield device, revs[device] - chance.randrange(min(3, revs[device])), moment, False
            else:
                revs[device] += 1
                yield device, revs[device], moment, False


BAD_KINDS = 9
REFUSED = "refused by the database"
"""Name of an attribute that nothing but a constraint of the database refuses."""


def spoil(kind: int, good: bytes, rev: int, *, id_name: str, content: str) -> bytes:
    """One of the ways in which a record can be poison, the peers' kinds and one more."""
    if kind == 0:
        return good[: len(good) // 2]
    message = json.loads(good)
    message["rev"] = rev + 1000
    if kind == 1:
        message["rev"] = "abc"
    elif kind == 2:
        message[content]["esn"] = "NF\x00X"
    elif kind == 3:
        message["rev"] = 2**63 + 7
    elif kind == 4:
        message[id_name] = "not-a-uuid"
    elif kind == 5:
        message[content]["attributes"]["fw"] = "7\x00"
    elif kind == 6:
        message[content] = None
    elif kind == 7:
        message["at"] = "yesterday"
    else:
        message["rev"] = rev + 1
        message[content]["attributes"][REFUSED] = True
    return json.dumps(message, separators=(",", ":")).encode()
