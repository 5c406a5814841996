"""What the lab reads out of the daemons' status."""

from dmpd.cli.lab_wiring import edge_totals, ring_bytes
from dmpd.lab.kill import killable, worker_pids

RAE = {"committed": 5, "outbox_rows": 2, "connected": True}


def test_a_simulation_speaks_for_all_its_raes():
    simulation = {"raes": {"sim-0001": RAE, "sim-0002": RAE | {"connected": False}}}
    totals = edge_totals([simulation, RAE])
    assert (totals.committed, totals.outbox_rows, totals.connected, totals.raes) == (15, 6, 2, 3)


def test_the_rings_of_all_partitions_count():
    assert ring_bytes({"partitions": {"0": {"ring_used_bytes": 10}, "1": {"ring_used_bytes": 5}}}) == 15


def test_only_living_workers_can_be_killed():
    status = {"partitions": {"0": {"worker_pid": 41}, "1": {"worker_pid": None}}}
    assert worker_pids(status) == [41]
    assert worker_pids({}) == []


def test_a_worker_can_be_killed_where_there_is_a_cloud_registry():
    assert killable(["kafka", "cloud-registry"]) == ["kafka", "cloud-registry", "worker"]
    assert killable(["kafka"]) == ["kafka"]
