"""What must hold of the records that workers handled, and how long a partition was silent: pure."""

from collections import defaultdict
from itertools import pairwise


def violations(handled, produced):
    """Sentences of what is wrong. ``produced``: by partition, how many records were produced, from offset 0 on.

    Every record is handled at least once; within a worker's life offsets and each key's numbers only grow; over all
    lives no record is handled before the one in front of it was.
    """
    return [*_missing(handled, produced), *_out_of_order(handled), *_ahead(handled)]


def _missing(handled, produced):
    seen = defaultdict(set)
    for one in handled:
        seen[one.partition].add(one.offset)
    for partition, count in produced.items():
        absent = sorted(set(range(count)) - seen[partition])
        if absent:
            yield f"partition {partition}: {len(absent)} never handled, the first is {absent[0]}"


def _out_of_order(handled):
    last_offset, last_nth = {}, {}
    for one in handled:
        if one.offset <= last_offset.get((one.life, one.partition), -1):
            yield f"{one.life}: offset {one.offset} after {last_offset[one.life, one.partition]}"
        if one.nth <= last_nth.get((one.life, one.key), -1):
            yield f"{one.life}: key {one.key} number {one.nth} after {last_nth[one.life, one.key]}"
        last_offset[one.life, one.partition] = one.offset
        last_nth[one.life, one.key] = one.nth


def _ahead(handled):
    following = defaultdict(int)
    for one in handled:
        if one.offset > following[one.partition]:
            yield f"{one.life}: partition {one.partition} offset {one.offset} before {following[one.partition]}"
        following[one.partition] = max(following[one.partition], one.offset + 1)


def repeats(handled):
    """How many records were handled more than once."""
    seen, twice = set(), set()
    for one in handled:
        place = (one.partition, one.offset)
        (twice if place in seen else seen).add(place)
    return len(twice)


def silence_s(handled, partition, from_s, to_s):
    """The longest time in which ``partition`` handled nothing, between the two."""
    times = [from_s, *(h.at_s for h in handled if h.partition == partition and from_s <= h.at_s <= to_s), to_s]
    return max(later - earlier for earlier, later in pairwise(sorted(times)))


def first_after(handled, partition, since_s, *, by=""):
    """When ``partition`` was first handled after ``since_s`` by a life whose name begins with ``by``; None = never."""
    return min(
        (h.at_s for h in handled if h.partition == partition and h.at_s > since_s and h.life.startswith(by)),
        default=None,
    )
