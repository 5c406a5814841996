"""Rings under a memory limit: all that an instance may hold fits, and nothing is asked where nothing is limited."""

import logging
import re
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import memory
from dmpd.stream.settings import MEBIBYTE, StreamSettings

SETTINGS = StreamSettings()


@given(
    st.integers(1, 200),
    st.integers(64, 16 << 10),
    st.sampled_from([SETTINGS, StreamSettings(batch_records_max=10), StreamSettings(batch_bytes_max=100 * MEBIBYTE)]),
)
def test_what_is_chosen_fits_and_is_as_large_as_may_be(partitions, limit_mib, settings):
    limit = limit_mib * MEBIBYTE
    chosen, least, most = memory.sizes(settings, partitions, limit), memory.smallest(settings), memory.largest(settings)
    assert all(low <= mid <= high for low, mid, high in zip(least, chosen, most, strict=True))
    needed = memory.needed_bytes(settings, partitions, chosen)
    assert needed <= max(limit * 0.9, memory.needed_bytes(settings, partitions, least))
    if chosen not in (most, least):
        assert needed > limit * 0.9 - partitions * 10_000
    assert replace(settings, **chosen._asdict()), "the settings' own rules hold"


def test_384_mib_hold_four_partitions_and_1_gib_all_twelve():
    for partitions, limit_mib in ((4, 384), (12, 1024)):
        chosen = memory.sizes(SETTINGS, partitions, limit_mib * MEBIBYTE)
        assert memory.smallest(SETTINGS) < chosen < memory.largest(SETTINGS)
    assert memory.sizes(SETTINGS, 12, 6144 * MEBIBYTE) == memory.largest(SETTINGS)


def test_the_guide_says_what_is_chosen():
    guide = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    rows = re.findall(
        r"^\| (\d+) (MiB|GiB) \| (\d+) \| ([\d.]+) MiB \| ([\d,]+) records \|$", guide, flags=re.MULTILINE
    )
    assert len(rows) >= 5
    for limit, unit, partitions, ring, records in rows:
        limit_bytes = int(limit) * MEBIBYTE * (1024 if unit == "GiB" else 1)
        chosen = memory.sizes(SETTINGS, int(partitions), limit_bytes)
        assert round(chosen.ring_bytes / MEBIBYTE, 1) == float(ring)
        assert float(f"{chosen.batch_records_max:.3g}") == float(records.replace(",", ""))
    least = {count: memory.needed_bytes(SETTINGS, count, memory.smallest(SETTINGS)) / 0.9 for count in (4, 12)}
    told = "({:.0f} MiB for 4 partitions, {:.0f} for 12)".format(*(ceil(one / MEBIBYTE) for one in least.values()))
    assert told in guide, told


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
    fitted = memory.fit(KafkaSettings(), SETTINGS)
    assert (fitted.ring_bytes, fitted.batch_bytes_max) == (4 * SETTINGS.max_record_bytes, SETTINGS.max_record_bytes)
    found = re.search(r"the memory limit of 128 MiB is too small for 12 partitions: (\d+) MiB are needed", caplog.text)
    caplog.clear()
    monkeypatch.setattr(memory, "limit_bytes", lambda: int(found[1]) * MEBIBYTE)
    memory.fit(KafkaSettings(), SETTINGS)
    assert [record.levelname for record in caplog.records] == ["INFO"], "with what was said to be needed it is content"
