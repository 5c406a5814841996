"""Grants, rules and what makes them, for tests."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from dmpd.model.grants import LEVELS, Grant

T0 = datetime(2026, 11, 28, 12, tzinfo=UTC)
S1 = "7b0a36d2-6c1f-4c3f-9c30-0b1f7f7a2f10"
S2 = "1f0a36d2-6c1f-4c3f-9c30-0b1f7f7a2f11"
USERS = ("u-a", "u-b", "u-c")
RAES = ("R1", "R2")
SESSIONS = (S1, S2, "rae", None)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def grant(
    name: str = "aaaa",
    user: str = "u-a",
    *,
    rae: str = "R1",
    session: str | None = S1,
    level: str = "read",
    start: float = 0,
    end: float = 60,
    created: float | None = None,
    **more: object,
) -> Grant:
    """One; times in minutes after ``T0``."""
    return Grant(
        id=name,
        user=user,
        rae=rae,
        session=session,
        level=level,  # type: ignore[arg-type]
        starts_at=at(start),
        ends_at=at(end),
        created_at=at(start if created is None else created),
        granted_by="op-test",
        why="test",
        **more,  # type: ignore[arg-type]
    )


def grants(size_max: int = 8) -> st.SearchStrategy[list[Grant]]:
    """Few users, sessions and minutes, so that everything overlaps."""
    one = st.builds(
        lambda user, rae, session, level, start, lasts, created, ended: (
            user,
            rae,
            session,
            "command" if session == "rae" and level == "exclusive" else level,
            start,
            start + lasts,
            created,
            ended,
        ),
        st.sampled_from(USERS),
        st.sampled_from(RAES),
        st.sampled_from(SESSIONS),
        st.sampled_from(LEVELS),
        st.integers(0, 9),
        st.integers(1, 9),
        st.integers(0, 9),
        st.none() | st.integers(0, 18),
    )
    return st.lists(one, max_size=size_max).map(
        lambda found: [
            grant(
                f"{number:04}",
                user,
                rae=rae,
                session=session,
                level=level,
                start=start,
                end=end,
                created=created,
                ended_at=None if ended is None else at(ended),
            )
            for number, (user, rae, session, level, start, end, created, ended) in enumerate(found)
        ]
    )
