"""What kernel events say of devices: the rules of the neighbour table, one story each."""

import pytest

from dmpd.local_registry.source import LanDown, LanUp
from dmpd.local_registry.sources.kernel_events import (
    Forwarding,
    ForwardingGone,
    LinkGone,
    LinkState,
    Neighbour,
    NeighbourGone,
)
from dmpd.local_registry.sources.neighbour_table import (
    ADDRESSES_MAX,
    DOUBT_S,
    SETTLE_S,
    STATIONS_MAX,
    NeighbourTable,
)

DOWN, UP = LanDown("neighbours"), LanUp("neighbours")
BRIDGE, PORT1, PORT2 = 1, 11, 12
MAC1, MAC2 = "02:00:00:77:00:01", "02:00:00:77:00:02"
IP1, IP2, IP6 = "10.77.1.1", "10.77.1.2", "fd00::1"


def bridge(**changes) -> LinkState:
    return LinkState(**{"index": BRIDGE, "name": "br-lan", **changes})


def port(index: int, **changes) -> LinkState:
    return LinkState(**{"index": index, "name": f"lan{index - 10}", "master": BRIDGE, **changes})


def frame(mac: str = MAC1, at: int = PORT1, age_s: float = 0.0) -> Forwarding:
    return Forwarding(bridge=BRIDGE, port=at, mac=mac, age_s=age_s)


def is_(state: str, ip: str = IP1, mac: str | None = MAC1, link: int = BRIDGE) -> Neighbour:
    return Neighbour(link=link, ip=ip, mac=None if state in ("failed", "incomplete") else mac, state=state)


LINKS = [bridge(), port(PORT1), port(PORT2)]
TWO = [*LINKS, frame(), frame(MAC2, PORT2), is_("reachable"), is_("reachable", IP2, MAC2)]


class Story:
    """A table and its clock; ``say`` returns what an event makes it say, in short."""

    def __init__(self, dump, *, now_s: float = 100.0) -> None:
        self.now_s = now_s
        self.table = NeighbourTable("br-lan")
        self.first = self.short(self.table.resync(dump, now_s))

    def say(self, *events):
        return self.short([one for event in events for one in self.table.apply(event, self.now_s)])

    def resync(self, dump):
        return self.short(self.table.resync(dump, self.now_s))

    def wait(self, seconds: float):
        self.now_s += seconds
        return self.short(self.table.tick(self.now_s))

    def known(self):
        return self.short(self.table.known(self.now_s))

    @staticmethod
    def short(signals):
        return [
            one
            if isinstance(one, LanDown | LanUp)
            else (one.mac, one.ip, one.port, one.reach, *(["gone"] if one.gone else []))
            for one in signals
        ]


@pytest.fixture
def story() -> Story:
    return Story(TWO)


def test_the_first_dump_tells_all_and_who_is_fresh():
    story = Story([*LINKS, frame(age_s=5), frame(MAC2, PORT2, age_s=200), is_("stale"), is_("stale", IP2, MAC2)])
    assert story.first == [(MAC1, IP1, "lan1", "up"), (MAC2, IP2, "lan2", None)]
    assert story.known() == story.first


def test_a_stale_entry_of_the_first_dump_is_no_sign_of_life_and_a_reachable_one_is():
    assert Story([bridge(), is_("stale"), is_("reachable", IP2, MAC2)]).first == [
        (MAC1, IP1, None, None),
        (MAC2, IP2, None, "up"),
    ]


def test_an_answer_that_the_kernel_still_believes_is_old_when_its_bridge_knows_no_port_for_it():
    assert Story([*LINKS, frame(MAC2, PORT2, age_s=200), is_("reachable"), is_("reachable", IP2, MAC2)]).first == [
        (MAC2, IP2, "lan2", "up"),
        (MAC1, IP1, None, None),
    ]


def test_a_new_device_settles_before_it_is_told(story):
    mac, ip = "02:00:00:77:00:09", "10.77.1.9"
    assert story.say(frame(mac, PORT1)) == []
    assert story.wait(60) == [], "a MAC without an address is no device"
    assert story.say(is_("stale", ip, mac)) == []
    assert story.wait(SETTLE_S / 2) == []
    assert story.wait(SETTLE_S / 2) == [(mac, ip, "lan1", "up")]
    assert story.wait(60) == []


def test_an_answer_is_a_sign_of_life_and_idling_is_none(story):
    assert story.say(is_("stale")) == []
    assert story.say(is_("delay")) == []
    assert story.say(is_("probe")) == [(MAC1, IP1, "lan1", "unsure")]
    assert story.say(is_("reachable")) == [(MAC1, IP1, "lan1", "up")]


def test_no_answer_on_the_only_address_is_down(story):
    assert story.say(is_("probe"), is_("failed"))[-1] == (MAC1, IP1, "lan1", "down")
    assert story.say(is_("incomplete"), is_("failed"))[-1] == (MAC1, IP1, "lan1", "down"), "asked again, told again"
    assert story.say(is_("stale")) == [(MAC1, IP1, "lan1", "up")], "a frame arrived"


def test_an_address_that_was_dropped_does_not_take_its_device_down(story):
    story.say(is_("reachable", IP6))
    assert story.say(is_("probe", IP6), is_("failed", IP6))[1:] == []


def test_a_device_is_down_when_none_of_its_addresses_answers(story):
    story.say(is_("stale", IP6), is_("probe"))
    assert story.say(is_("failed")) == [(MAC1, IP1, "lan1", "unsure")]
    assert story.table.take_doubtful() == [IP6]
    assert story.table.take_doubtful() == []
    assert story.say(is_("probe", IP6), is_("failed", IP6))[-1] == (MAC1, IP6, "lan1", "down")
    assert story.wait(DOUBT_S) == [], "told once"


def test_an_address_that_cannot_be_asked_does_not_keep_a_dead_device_alive(story):
    story.say(is_("stale", IP6), is_("probe"), is_("failed"))
    assert story.wait(DOUBT_S - 0.1) == []
    assert story.wait(0.2) == [(MAC1, IP1, "lan1", "down")]


def test_any_sign_of_life_ends_the_doubt(story):
    story.say(is_("stale", IP6), is_("probe"), is_("failed"), frame())
    assert story.wait(DOUBT_S + 1) == []


def test_a_flush_by_hand_is_a_reason_to_ask_and_no_answer(story):
    assert story.say(is_("failed"), NeighbourGone(link=BRIDGE, ip=IP1)) == [(MAC1, IP1, "lan1", "unsure")]
    assert story.table.take_doubtful() == [IP1]


def test_a_deleted_entry_says_nothing(story):
    assert story.say(NeighbourGone(link=BRIDGE, ip=IP1), NeighbourGone(link=BRIDGE, ip="10.77.1.77")) == []


def test_a_device_that_died_while_the_kernel_knew_nothing_of_it_is_down_once_asked(story):
    dead, ip = "02:00:00:77:00:09", "10.77.1.9"
    assert story.say(is_("failed", ip)) == [], "nobody asked: it may be anybody's old address"
    story.table.ask(ip, dead, story.now_s)
    assert story.say(is_("incomplete", ip), is_("failed", ip)) == [(dead, ip, None, "down")]
    assert story.say(is_("failed", ip)) == []
    story.table.ask(ip, dead, story.now_s)
    story.wait(DOUBT_S + 1)
    assert story.say(is_("failed", ip)) == [], "that was another question"


def test_a_question_outlives_a_flush_that_is_told_after_it(story):
    story.table.ask(IP1, MAC1, story.now_s)
    said = story.say(
        NeighbourGone(link=BRIDGE, ip=IP1),
        Neighbour(link=BRIDGE, ip=IP1, mac=None, state="incomplete"),
        Neighbour(link=BRIDGE, ip=IP1, mac=None, state="failed"),
    )
    assert said == [(MAC1, IP1, None, "down")]


def test_an_old_address_of_a_live_device_is_not_its_death(story):
    story.table.ask("10.77.1.9", MAC1, story.now_s)
    assert story.say(is_("failed", "10.77.1.9")) == []


def test_asking_takes_the_other_addresses_along_but_not_the_failed(story):
    story.say(is_("stale", IP6), is_("probe", "fd00::2"), is_("failed", "fd00::2"))
    assert story.table.ask(IP1, MAC1, story.now_s) == [IP6]
    assert story.table.ask(IP1, None, story.now_s) == [IP6]
    assert story.table.ask("10.9.9.9", None, story.now_s) == []


def test_a_pulled_cable_is_gone_at_once_in_either_order_of_events(story):
    assert story.say(port(PORT1, carrier=False)) == [(MAC1, IP1, "lan1", "down", "gone")]
    assert story.say(ForwardingGone(bridge=BRIDGE, port=PORT1, mac=MAC1)) == []
    story.say(ForwardingGone(bridge=BRIDGE, port=PORT2, mac=MAC2))
    assert story.say(port(PORT2, carrier=False)) == [(MAC2, IP2, "lan2", "down", "gone"), DOWN]


def test_what_the_kernel_still_believes_does_not_bring_a_pulled_device_back(story):
    story.say(port(PORT1, carrier=False))
    dump = [bridge(), port(PORT1, carrier=False), port(PORT2), is_("reachable"), is_("stale", IP2, MAC2)]
    assert story.resync(dump) == []
    assert story.known() == [(MAC1, IP1, "lan1", "down"), (MAC2, IP2, "lan2", "up")]
    assert story.say(frame(), is_("reachable")) == [], "events from before the dump"
    assert story.say(port(PORT1), frame()) == [(MAC1, IP1, "lan1", "up")]


def test_a_late_event_of_a_dead_port_moves_nobody_there(story):
    story.say(port(PORT2, carrier=False))
    assert story.say(frame(MAC1, PORT2)) == []
    assert (MAC1, IP1, "lan1", "up") in story.known()


def test_another_device_at_a_port_does_not_bring_the_pulled_one_back(story):
    story.say(port(PORT1, carrier=False), port(PORT1))
    assert story.resync([*LINKS, is_("reachable"), is_("stale", IP2, MAC2)]) == []
    assert story.say(is_("reachable")) == [(MAC1, IP1, "lan1", "up")], "an answer received now"


def test_a_device_that_moved_to_another_port_is_not_pulled_with_the_old_one(story):
    assert story.say(frame(MAC1, PORT2)) == [(MAC1, IP1, "lan2", "up")]
    assert story.say(port(PORT1, carrier=False)) == []


def test_a_port_that_leaves_the_bridge_takes_its_devices_along(story):
    assert story.say(port(PORT1, master=None)) == [(MAC1, IP1, "lan1", "down", "gone")]


def test_the_last_port_with_a_switch_behind_it_is_the_lan_and_not_its_devices():
    dump = [bridge(), port(PORT1), frame(), frame(MAC2), is_("reachable"), is_("reachable", IP2, MAC2)]
    story = Story(dump)
    assert story.say(port(PORT1, carrier=False)) == [DOWN]
    assert story.say(bridge(carrier=False), is_("probe"), is_("failed")) == [(MAC1, IP1, "lan1", "unsure")]
    assert story.say(port(PORT1), bridge()) == [UP]


def test_a_bridge_that_is_down_or_gone_is_a_lan_that_is_down(story):
    assert story.say(bridge(up=False, carrier=False)) == [DOWN]
    assert story.known()[0] == DOWN
    assert story.say(bridge()) == [UP]
    assert story.say(LinkGone(BRIDGE)) == [DOWN]
    assert story.say(LinkState(index=40, name="br-lan")) == [UP]
    assert story.known() == [], "a new bridge knows nobody"


def test_a_lan_that_is_absent_at_the_start_is_down_once():
    story = Story([])
    assert story.first == [DOWN]
    assert story.resync([]) == []
    assert story.resync([bridge()]) == [UP]


def test_a_plain_interface_is_a_lan_too():
    story = Story([LinkState(index=5, name="br-lan"), is_("reachable", link=5)])
    assert story.first == [(MAC1, IP1, None, "up")]
    assert story.say(LinkState(index=5, name="br-lan", carrier=False)) == [DOWN]


def test_an_address_that_changes_hands_belongs_to_the_new_device(story):
    assert story.say(is_("stale", IP1, MAC2)) == [(MAC2, IP1, "lan2", "up")]
    assert (MAC1, IP1, "lan1", "up") not in story.known()


def test_silence_for_minutes_is_worth_a_question(story):
    assert story.say(ForwardingGone(bridge=BRIDGE, port=PORT1, mac=MAC1)) == [(MAC1, IP1, "lan1", "unsure")]


def test_a_resync_tells_what_was_missed_and_forgets_what_is_gone(story):
    mac, ip = "02:00:00:77:00:09", "10.77.1.9"
    story.now_s += 100
    said = story.resync([*LINKS, frame(age_s=3), frame(mac, PORT2), is_("stale"), is_("stale", ip, mac)])
    assert said == [(MAC1, IP1, "lan1", "up")], "its frames go on, which no event tells"
    assert story.wait(SETTLE_S) == [(mac, ip, "lan2", "up")]
    assert {one[0] for one in story.known()} == {MAC1, mac}


def test_other_interfaces_are_none_of_our_business(story):
    assert story.say(is_("reachable", "192.0.2.1", MAC1, link=99)) == []
    assert story.say(Forwarding(bridge=98, port=99, mac=MAC1)) == []
    assert story.say(ForwardingGone(bridge=98, port=99, mac=MAC1)) == []
    assert story.say(LinkState(index=99, name="wan", carrier=False)) == []


def test_a_flood_of_macs_or_addresses_stays_within_bounds(story):
    for n in range(STATIONS_MAX + 10):
        story.say(frame(f"06:00:00:00:{n >> 8:02x}:{n & 255:02x}"))
    assert story.table.refused == 12
    for n in range(50):
        story.say(is_("stale", f"fd00::{n + 100:x}"))
    assert len([one for one in story.known() if one[0] == MAC1]) == ADDRESSES_MAX
