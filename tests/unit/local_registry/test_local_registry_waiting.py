"""A new device waits for its ESN, and for nothing else."""

from dmpd.local_registry.source import Evidence
from dmpd.local_registry.waiting import DEVICES_MAX, EVIDENCE_MAX, WaitingRoom

MAC = "3c:12:aa:00:00:01"


def says(mac: str | None = MAC, **what: object) -> Evidence:
    return Evidence(source="test", seen_at_s=0.0, mac=mac, **what)  # type: ignore[arg-type]


LEASE = says(arrived=True, ip="10.0.0.1")
SIGHTING = says(port="lan1")
CLAIM = says(esn="E1")


def test_the_esn_goes_first_and_ends_the_wait():
    room = WaitingRoom(0.5)
    assert room.admit(LEASE, 0.0, known=False) == []
    assert room.admit(SIGHTING, 0.1, known=False) == []
    assert room.admit(CLAIM, 0.2, known=False) == [CLAIM, LEASE, SIGHTING]
    assert room.admit(SIGHTING, 0.3, known=True) == [SIGHTING]
    assert room.due(9.0) == []


def test_without_an_esn_it_ends_by_itself():
    room = WaitingRoom(0.5)
    room.admit(LEASE, 0.0, known=False)
    assert room.due(0.49) == []
    assert room.due(0.5) == [LEASE]
    room.admit(LEASE, 1.0, known=False)
    assert room.admit(SIGHTING, 1.5, known=False) == [LEASE, SIGHTING]


def test_who_is_known_or_did_not_arrive_does_not_wait():
    room = WaitingRoom(0.5)
    assert room.admit(LEASE, 0.0, known=True) == [LEASE]
    assert room.admit(SIGHTING, 0.0, known=False) == [SIGHTING]
    assert room.admit(says(None, ip="10.0.0.1", arrived=True), 0.0, known=False) != []
    assert WaitingRoom(0.0).admit(LEASE, 0.0, known=False) == [LEASE]


def test_who_leaves_while_it_waits_is_told_in_order():
    room = WaitingRoom(0.5)
    room.admit(LEASE, 0.0, known=False)
    gone = says(gone=True)
    assert room.admit(gone, 0.1, known=False) == [LEASE, gone]


def test_the_room_is_bounded():
    room = WaitingRoom(0.5)
    macs = [f"3c:12:aa:00:{number >> 8:02x}:{number & 255:02x}" for number in range(DEVICES_MAX + 1)]
    assert [room.admit(says(mac, arrived=True), 0.0, known=False) for mac in macs[:-1]] == [[]] * DEVICES_MAX
    assert room.admit(says(macs[-1], arrived=True), 0.0, known=False) != []
    for _ in range(EVIDENCE_MAX - 2):
        assert room.admit(says(macs[0]), 0.1, known=False) == []
    assert len(room.admit(says(macs[0]), 0.1, known=False)) == EVIDENCE_MAX
