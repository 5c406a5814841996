"""Any history of kernel events, with events lost on the way: the table's bounds hold, and a dump heals it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.local_registry.source import Evidence, LanDown, LanUp
from dmpd.local_registry.sources.kernel_events import (
    Forwarding,
    ForwardingGone,
    LinkGone,
    LinkState,
    Neighbour,
    NeighbourGone,
)
from dmpd.local_registry.sources.neighbour_table import SETTLE_S, NeighbourTable

MACS = st.sampled_from([f"02:00:00:77:00:0{n}" for n in range(4)])
IPS = st.sampled_from([f"10.77.1.{n}" for n in range(4)] + ["fd00::1"])
PORTS = st.sampled_from([11, 12, 13])
LAN = st.just(1)
STATES = st.sampled_from(["incomplete", "reachable", "stale", "delay", "probe", "failed"])
BRIDGE = st.builds(LinkState, index=LAN, name=st.just("br-lan"), up=st.booleans(), carrier=st.booleans())
PORT = st.builds(
    LinkState,
    index=PORTS,
    name=st.just("lanX"),
    master=st.sampled_from([1, 1, 1, None]),
    up=st.booleans(),
    carrier=st.booleans(),
)
EVENTS = st.one_of(
    BRIDGE,
    PORT,
    st.builds(LinkGone, PORTS | LAN),
    st.builds(Neighbour, link=LAN, ip=IPS, mac=MACS | st.none(), state=STATES),
    st.builds(NeighbourGone, link=LAN, ip=IPS),
    st.builds(Forwarding, bridge=LAN, port=PORTS, mac=MACS, age_s=st.sampled_from([0.0, 10.0, 200.0])),
    st.builds(ForwardingGone, bridge=LAN, port=PORTS, mac=MACS),
)
DUMPS = st.tuples(
    st.just(LinkState(index=1, name="br-lan")),
    st.just(LinkState(index=11, name="lan1", master=1)),
    st.lists(st.builds(Forwarding, bridge=LAN, port=st.just(11), mac=MACS), unique_by=lambda one: one.mac, max_size=4),
    st.lists(
        st.builds(Neighbour, link=LAN, ip=IPS, mac=MACS, state=st.sampled_from(["reachable", "stale"])),
        unique_by=lambda one: one.ip,
        max_size=5,
    ),
).map(lambda one: [one[0], one[1], *one[2], *one[3]])


def check(table: NeighbourTable, signals, *, lan_down: bool) -> bool:
    """The order of signals makes sense; returns whether the LAN is down after them."""
    for signal in signals:
        if isinstance(signal, LanDown):
            assert not lan_down
            lan_down = True
        elif isinstance(signal, LanUp):
            assert lan_down
            lan_down = False
        else:
            assert isinstance(signal, Evidence)
            assert signal.mac is not None
            assert signal.reach != "down" or signal.gone or not lan_down, "nobody is judged while the LAN is down"
    owned = [ip for station in table._stations.values() for ip in station.addresses]
    assert sorted(owned) == sorted(table._owners), "an address belongs to one station"
    assert all(one.addresses or one.in_forwarding for one in table._stations.values()), "no station without a reason"
    return lan_down


@given(st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 0.1, 1.0, 20.0])), max_size=60), DUMPS)
@settings(max_examples=200)
def test_any_history_keeps_the_table_sound_and_a_dump_makes_it_true(history, dump):
    table, now_s = NeighbourTable("br-lan"), 100.0
    down = check(table, table.resync([LinkState(index=1, name="br-lan")], now_s), lan_down=False)
    for event, pause_s in history:
        now_s += pause_s
        down = check(table, table.apply(event, now_s), lan_down=down)
        down = check(table, table.tick(now_s), lan_down=down)
    assert any(isinstance(one, LanDown) for one in table.known(now_s)) == down
    down = check(table, table.resync(dump, now_s), lan_down=down)
    check(table, table.tick(now_s + SETTLE_S), lan_down=down)
    told = {(one.mac, one.ip) for one in table.known(now_s + SETTLE_S) if isinstance(one, Evidence)}
    assert told == {(one.mac, one.ip) for one in dump if isinstance(one, Neighbour)}
