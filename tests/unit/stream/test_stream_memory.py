"""Rings under a memory limit: all that an instance may hold fits, and nothing is asked where nothing is limited."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import memory
from dmpd.stream.settings import MEBIBYTE, RING_BYTES, StreamSettings

SETTINGS = StreamSettings()


@given(st.integers(1, 200), st.integers(64 * MEBIBYTE, 16 << 30))
def test_what_fits_fits_and_is_never_more_than_the_default(partitions, limit):
    ring = memory.ring_bytes(SETTINGS, partitions, limit)
    assert ring <= RING_BYTES
    assert memory.needed_bytes(SETTINGS, partitions, ring) <= limit * 0.9
    if ring < RING_BYTES:  # and it is no smaller than it must be
        assert memory.needed_bytes(SETTINGS, partitions, ring + 1) > limit * 0.9 - partitions


def test_384_mib_hold_four_whole_partitions_and_twelve_smaller_ones():
    assert memory.ring_bytes(SETTINGS, 4, 384 * MEBIBYTE) == RING_BYTES
    assert 4 * SETTINGS.max_record_bytes < memory.ring_bytes(SETTINGS, 12, 384 * MEBIBYTE) < RING_BYTES


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1000", "memory.max": "2000"}, 1000),
        ("0::/\n", {"memory.max": "402653184\n"}, 402653184),
        ("5:cpu,memory:/docker/x\n0::/\n", {"memory/memory.limit_in_bytes": "7000"}, 7000),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("5:cpu:/\n0::/x\n", {}, None),
    ],
)
def test_the_limit_is_the_smallest_that_can_be_seen(tmp_path, cgroup, files, limit):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert memory.limit_bytes(tmp_path) == limit
    assert memory.limit_bytes(tmp_path / "nothing") is None


@pytest.fixture
def topic_of(monkeypatch):
    def partitions(count):
        monkeypatch.setattr(memory.kafka_admin, "list_end_offsets", lambda *_: dict.fromkeys(range(count), 0))

    return partitions


def test_what_is_said_stays_and_without_a_limit_nobody_is_asked(monkeypatch, topic_of):
    monkeypatch.setattr(memory, "limit_bytes", lambda: 100 * MEBIBYTE)
    said = StreamSettings(ring_bytes=16 * MEBIBYTE)
    assert memory.fit(KafkaSettings(), said) is said
    monkeypatch.setattr(memory, "limit_bytes", lambda: None)
    assert memory.fit(KafkaSettings(), SETTINGS) is SETTINGS


def test_too_small_a_limit_is_said_and_the_smallest_rings_are_taken(monkeypatch, topic_of, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(memory, "limit_bytes", lambda: 128 * MEBIBYTE)
    topic_of(12)
    assert memory.fit(KafkaSettings(), SETTINGS).ring_bytes == 4 * SETTINGS.max_record_bytes
    assert "the memory limit of 128 MiB is too small for 12 partitions: 312 MiB are needed" in caplog.text
