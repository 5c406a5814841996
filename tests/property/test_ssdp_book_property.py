"""Any history of messages, searches and silence: evidence names its speaker, and silence is told only after speech."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dmpd.local_registry.sources.ssdp_book import NEWS_BURST, NEWS_PER_S, SsdpBook
from dmpd.local_registry.sources.ssdp_message import DIAL_TARGET, MDX_TARGETS, SsdpMessage, Wakeup

MACS = [f"3c:12:aa:00:00:0{n}" for n in range(3)]
MESSAGES = st.builds(
    lambda kind, target, uuid, wakeup: SsdpMessage(
        kind=kind, target=target, uuid=uuid, esn=uuid if target in MDX_TARGETS else None, wakeup=wakeup, max_age_s=30.0
    ),
    st.sampled_from(["reply", "alive", "byebye"]),
    st.sampled_from([*MDX_TARGETS, DIAL_TARGET]),
    st.sampled_from(["ESN-1", "ESN-2", "ESN-3"]),
    st.sampled_from([None, Wakeup(mac=MACS[0])]),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(MACS), st.one_of(MESSAGES, st.just("asked"), st.just("tick")), st.floats(0, 40)),
    max_size=60,
)


@given(STEPS)
def test_a_speaker_is_told_of_before_its_silence_and_seldom_anew(steps):
    book, now_s = SsdpBook(), 0.0
    speaking: set[str] = set()
    news: dict[str, list[object]] = {mac: [] for mac in MACS}
    for mac, what, pause_s in steps:
        now_s += pause_s
        if what == "asked":
            book.asked(now_s, mac=mac)
            said = []
        elif what == "tick":
            said = book.tick(now_s)
        else:
            said = book.heard(what, ip="10.77.1.1", mac=mac, now_s=now_s)
            assert {one.mac for one in said} <= {mac}
        for one in said:
            assert one.seen_at_s == now_s
            assert not one.gone
            if one.reach == "up":
                assert (one.power, one.esn_source) == ("on", "mdx" if one.esn else None)
                speaking.add(one.mac)
                news[one.mac].append(one.esn)
            else:
                assert one.power in ("standby", "asleep")
                assert one.mac in speaking
                speaking.discard(one.mac)
    assert {one.mac for one in book.known()} == speaking
    silences = sum(1 for _mac, what, _pause in steps if what == "tick")
    for told in news.values():
        changes = sum(1 for before, after in pairwise(told) if before != after)
        assert changes <= (NEWS_BURST + 1) * (1 + silences) + now_s * NEWS_PER_S
