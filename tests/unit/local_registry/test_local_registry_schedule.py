"""Checkpoints spread over the interval, rosters that cover every UUID once."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from dmpd.local_registry.schedule import due, roster_parts

sessions = st.lists(st.uuids().map(str), max_size=40, unique=True).map(sorted)


@given(sessions, st.integers(1, 7))
def test_roster_parts_cover_every_uuid_exactly_once(ids: list[str], part_max: int) -> None:
    parts = roster_parts(ids, part_max)
    assert UUID(parts[0].first).int == 0
    assert UUID(parts[-1].last).int == 2**128 - 1
    for part, following in zip(parts, parts[1:], strict=False):  # noqa: RUF007 - reads as it is meant
        assert UUID(part.last).int + 1 == UUID(following.first).int
    assert [one for part in parts for one in part.sessions] == ids
    assert all(
        part.first <= one <= part.last and len(part.sessions) <= part_max for part in parts for one in part.sessions
    )


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=200))
def test_each_name_has_one_turn_per_interval_however_time_is_cut(steps: list[float]) -> None:
    names = [f"s{number}" for number in range(20)]
    turns = dict.fromkeys(names, 0)
    now_s = 1000.0
    for step_s in steps:
        for name in due(names, since_s=now_s, now_s=now_s + step_s, interval_s=60.0):
            turns[name] += 1
        now_s += step_s
    whole = (now_s - 1000.0) / 60.0
    assert all(int(whole) - 1 <= count <= int(whole) + 1 for count in turns.values())


def test_turns_are_spread() -> None:
    names = [f"device-{number}" for number in range(1000)]
    first_tenth = list(due(names, since_s=0.0, now_s=60.0, interval_s=600.0))
    assert 60 <= len(first_tenth) <= 140
