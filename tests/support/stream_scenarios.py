"""Rebalances under load, the same on the mock cluster and on a real Kafka; each returns what it measured, seconds."""

import time

from tests.support.stream_daemon import wait_for
from tests.support.stream_group import freeze, thaw
from tests.support.stream_record import read_lives
from tests.support.stream_rules import silence_s


def begun(group, load, name="one"):
    """A first instance that owns all and handles all."""
    daemon = group.start(name)
    group.wait_shared(name)
    load.send(1)
    group.wait_flowing(0.0)
    return daemon


def kept_silence_s(group, kept, since_s):
    """Of those that stayed: the longest silence from ``since_s`` to a moment in which all flow again."""
    until_s = max(group.wait_flowing(time.monotonic(), partitions=kept).values())
    handled = read_lives(group.folder)
    return max(silence_s(handled, partition, since_s, until_s) for partition in kept)


def join(group, name, *, others):
    """``name`` joins ``others``. Returns the silence of kept partitions, and when its first record of each came."""
    before = {other: group.owned(other) for other in others}
    since_s = time.monotonic()
    group.start(name)
    group.wait_shared(name, *others)
    taken = group.wait_flowing(since_s, by=name, partitions=group.owned(name))
    kept = set().union(*(before[other] & group.owned(other) for other in others))
    return kept_silence_s(group, kept, since_s), max(taken.values()) - since_s


def leave(group, name, *, others):
    """``name`` is told to end, in order. Returns the silence of the others' own and of what they took over."""
    mine, kept = group.owned(name), set().union(*map(group.owned, others))
    since_s = time.monotonic()
    group.instances[name].terminate()
    assert group.instances[name].exit_code() == 0, group.log()
    group.wait_shared(*others)
    group.wait_flowing(time.monotonic(), partitions=mine)
    return kept_silence_s(group, kept, since_s), kept_silence_s(group, mine, since_s)


def kill(group, name, *, others):
    """``name`` is killed by -9. Returns the silence of the others' own and the time of the takeover."""
    mine, kept = group.owned(name), set().union(*map(group.owned, others))
    since_s = time.monotonic()
    group.instances[name].process.kill()
    taken = taken_over(group, mine, since_s, others)
    return kept_silence_s(group, kept, since_s), taken


def taken_over(group, partitions, since_s, others):
    """How long after ``since_s`` the last of ``partitions`` was handled by one of ``others``."""

    def by_others():
        handled = read_lives(group.folder)
        firsts = {}
        for one in handled:
            if one.at_s > since_s and one.partition in partitions and one.life.split("-")[0] in others:
                firsts.setdefault(one.partition, one.at_s)
        return firsts if firsts.keys() >= partitions else None

    return max(wait_for(by_others, group.log, timeout_s=60).values()) - since_s


def freeze_past_the_session(group, name, *, others, watch=lambda: None):
    """``name`` stands still until others own what it had, then goes on. Returns the time of the takeover.

    ``watch`` is called again and again meanwhile.
    """
    mine = group.owned(name)
    since_s = time.monotonic()
    freeze(group.instances[name])
    try:
        taken = taken_over(group, mine, since_s, others)
        watch()
    finally:
        thaw(group.instances[name])
    thawed_s = time.monotonic()
    wait_for(lambda: "lost: " in group.instances[name].log, group.log)
    watch()
    group.wait_shared(name, *others)
    group.wait_flowing(thawed_s, by=name, partitions=group.owned(name))
    watch()
    return taken
