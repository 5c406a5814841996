"""What kernel events of one LAN say of its devices. Pure; ``now_s`` is monotonic and passed in.

A *station* is a MAC on the LAN with the addresses it has and the bridge port it was last seen at. The rules:

- A frame is a sign of life: an entry of the forwarding table, an address new as STALE, an answer (REACHABLE).
- FAILED says that one address does not answer. A device has several and drops some (IPv6 privacy addresses, another
  lease): it is down only when none of its addresses answers. Those not yet asked are asked, within a bound of time.
  FAILED without a question before it is somebody's ``ip neigh flush``, and a reason to ask.
- A port without carrier is a cable pulled: its stations are gone at once. Unless it was the LAN's last port and had
  several stations behind it: then a switch or the LAN itself went, which ``LanDown`` says, and nobody is judged.
- A deleted entry says nothing: the kernel also forgets what is merely old, and everything when the LAN goes down.
- A MAC without an address is a switch, an access point or a flood: it is not told of before it has one.
"""

from collections.abc import Sequence
from typing import Final

from dmpd.local_registry.source import Evidence, LanDown, LanSignal, LanUp, Reach
from dmpd.local_registry.sources.kernel_events import (
    Forwarding,
    ForwardingGone,
    KernelEvent,
    LinkGone,
    LinkState,
    Neighbour,
    NeighbourGone,
    NeighbourState,
)
from dmpd.local_registry.sources.lan_links import LanLinks

NAME: Final = "neighbours"
STATIONS_MAX: Final = 4096
ADDRESSES_MAX: Final = 16
"""Addresses kept per station; beyond, the oldest one is forgotten."""
FRESH_S: Final = 30.0
"""A frame this young found in a dump is a sign of life: about what the kernel calls REACHABLE."""
SETTLE_S: Final = 0.3
"""A new station is told of this long after its first address: its lease, which knows more of it, goes first."""
DOUBT_S: Final = 10.0
"""Time for asked addresses to answer: 5 s until the kernel asks, three probes of 1 s, and some."""


class _Station:
    __slots__ = ("addresses", "doubted_s", "heard_s", "in_forwarding", "port", "settled", "settles_s", "unplugged")

    def __init__(self) -> None:
        self.addresses: dict[str, NeighbourState] = {}
        self.port: int | None = None
        """Where it was last seen, also after the bridge forgot."""
        self.in_forwarding = False
        self.unplugged = False
        """Its port lost carrier, and no frame came since."""
        self.heard_s: float | None = None
        self.settled = False
        self.settles_s: float | None = None
        self.doubted_s: float | None = None
        """Since when one address does not answer and the others are being asked."""


class NeighbourTable:
    """The stations of the LAN ``interface``, a bridge or a plain interface. Not thread-safe.

    Invariants: an address belongs to one station; at most 4096 stations with at most 16 addresses each; a station has
    an address or an entry in the forwarding table.
    """

    def __init__(self, interface: str) -> None:
        self._links = LanLinks(interface)
        self._stations: dict[str, _Station] = {}
        self._owners: dict[str, str] = {}
        self._lan_up: bool | None = None
        self._asked: dict[str, tuple[str, float]] = {}
        """Addresses asked lately: whose they are said to be, and when."""
        self._doubtful: list[str] = []
        self.refused = 0
        """Sightings not taken in because the table is full."""

    def apply(self, event: KernelEvent, now_s: float) -> list[LanSignal]:
        """Take in one event as it happens."""
        match event:
            case LinkState() | LinkGone():
                return self._link(event, now_s)
            case Neighbour():
                return self._neighbour(event, now_s, live=True)
            case NeighbourGone():
                if event.link == self._links.lan:
                    self._drop_address(event.ip)
                return []
            case Forwarding():
                return self._forwarding(event, now_s, live=True)
            case ForwardingGone():
                return self._forwarding_gone(event, now_s)

    def resync(self, dump: Sequence[KernelEvent], now_s: float) -> list[LanSignal]:
        """Take in everything that the kernel knows now; what it no longer knows is forgotten without a word."""
        first = self._lan_up is None
        links = [event for event in dump if isinstance(event, LinkState)]
        signals: list[LanSignal] = []
        if first:
            self._links.replace(links)
            signals += self._turn_lan()
        for index in self._links.missing_from(links):
            signals += self._link(LinkGone(index), now_s)
        for link in links:
            signals += self._link(link, now_s)
        self._forget_all_but(dump)
        for event in dump:
            # The ports first: an address is told with the port that its station is at.
            if isinstance(event, Forwarding):
                signals += self._forwarding(event, now_s, live=False)
        for event in dump:
            if isinstance(event, Neighbour):
                signals += self._neighbour(event, now_s, live=False, known=not first)
        if first:
            for station in self._stations.values():
                station.settles_s = now_s if station.addresses else None
            signals += self.tick(now_s)
        return signals

    def tick(self, now_s: float) -> list[LanSignal]:
        """Let time pass: new stations settle, doubts end. To be called ten times a second while ``is_waiting``."""
        signals: list[LanSignal] = []
        for mac, station in self._stations.items():
            if station.settles_s is not None and now_s >= station.settles_s:
                station.settled, station.settles_s = True, None
                signals += self._known(mac, station, now_s)
            if station.doubted_s is not None and now_s - station.doubted_s >= DOUBT_S:
                station.doubted_s = None
                signals += self._tell(mac, station, now_s, reach="down", ip=next(iter(station.addresses), None))
        return signals

    def is_waiting(self) -> bool:
        """Whether time alone will make it say something: a station settles, or a doubt ends."""
        return any(one.settles_s is not None or one.doubted_s is not None for one in self._stations.values())

    def known(self, now_s: float) -> list[LanSignal]:
        """Everything known now, one piece of evidence per address."""
        signals: list[LanSignal] = [LanDown(NAME)] if self._lan_up is False else []
        for mac, station in self._stations.items():
            if station.settled:
                signals += self._known(mac, station, now_s)
        return signals

    def mac_of(self, ip: str) -> str | None:
        """The MAC that the kernel has for ``ip`` on the LAN interface; None if it has none, or it does not answer."""
        mac = self._owners.get(ip)
        if mac is None or self._stations[mac].addresses[ip] in ("incomplete", "failed"):
            return None
        return None if self._stations[mac].unplugged else mac

    def take_doubtful(self) -> list[str]:
        """Addresses to ask, because another one of the same station does not answer; each is given once."""
        taken, self._doubtful = self._doubtful, []
        return taken

    def ask(self, ip: str, mac: str | None, now_s: float) -> list[str]:
        """``ip`` is about to be asked; returns other addresses of the same station that are worth asking with it."""
        if mac is not None:
            # The kernel may say FAILED without a MAC: a device that died while the router restarted, or an entry
            # flushed just now, of which the event is still on its way.
            self._asked = {one: of for one, of in self._asked.items() if now_s - of[1] <= DOUBT_S}
            if len(self._asked) < STATIONS_MAX:
                self._asked[ip] = mac, now_s
        station = self._stations.get(mac or self._owners.get(ip, ""))
        if station is None:
            return []
        return [other for other, state in station.addresses.items() if other != ip and state != "failed"]

    def _link(self, event: LinkState | LinkGone, now_s: float) -> list[LanSignal]:
        lan_before = self._links.lan
        lost = self._links.apply(event)
        signals: list[LanSignal] = []
        if lost and self._lan_up:
            signals += self._port_lost(event.index, now_s)
        if lan_before is not None and self._links.lan != lan_before:
            self._stations.clear()
            self._owners.clear()
        return signals + self._turn_lan()

    def _turn_lan(self) -> list[LanSignal]:
        """See whether the LAN is up, and tell if that is news. Up at the very start is none."""
        was_up, self._lan_up = self._lan_up, self._links.is_up()
        if self._lan_up == was_up or (self._lan_up and was_up is None):
            return []
        self._end_doubts()
        return [LanUp(NAME) if self._lan_up else LanDown(NAME)]

    def _port_lost(self, port: int, now_s: float) -> list[LanSignal]:
        behind = [(mac, one) for mac, one in self._stations.items() if one.port == port and not one.unplugged]
        if not self._links.is_up() and len(behind) > 1:
            return []
        signals: list[LanSignal] = []
        for mac, station in behind:
            station.unplugged = True
            station.doubted_s = None
            ip = next(iter(station.addresses), None)
            signals += self._tell(mac, station, now_s, reach="down", ip=ip, gone=True)
        return signals

    def _end_doubts(self) -> None:
        for station in self._stations.values():
            station.doubted_s = None
        self._doubtful.clear()

    def _neighbour(self, event: Neighbour, now_s: float, *, live: bool, known: bool = True) -> list[LanSignal]:
        if event.link != self._links.lan:
            return []
        owner = self._owners.get(event.ip)
        mac = event.mac or owner
        if mac is None:
            return self._stranger(event, now_s) if live else []
        station = self._station(mac)
        if station is None:
            return []
        if owner is not None and owner != mac:
            self._drop_address(event.ip)
        before = station.addresses.get(event.ip)
        self._own(event.ip, mac, station, event.state, now_s)
        match event.state:
            case "reachable":
                # As an event it is an answer received now. In a dump it may be older than a cable pulled: believed
                # for up to 45 s, while the bridge has forgotten the port at once.
                pulled = station.unplugged or (self._links.is_bridge() and not station.in_forwarding)
                return self._alive(mac, station, now_s, ip=event.ip) if live or not pulled else []
            case "stale":
                newly = before in (None, "incomplete", "failed")
                return self._alive(mac, station, now_s, ip=event.ip) if newly and known else []
            case "probe" | "incomplete":
                return self._tell(mac, station, now_s, reach="unsure", ip=event.ip) if live else []
            case "failed":
                if live and before in (None, "reachable", "stale"):
                    return self._doubt(mac, station, now_s, ip=event.ip, ask=[event.ip])
                return self._failed(mac, station, now_s, ip=event.ip) if live or before != "failed" else []
            case "delay":
                return []

    def _failed(self, mac: str, station: _Station, now_s: float, *, ip: str) -> list[LanSignal]:
        others = {other: state for other, state in station.addresses.items() if other != ip}
        if "reachable" in others.values() and not station.unplugged:
            return []
        unasked = [other for other, state in others.items() if state != "failed"]
        if not unasked or station.unplugged:
            station.doubted_s = None
            return self._tell(mac, station, now_s, reach="down", ip=ip)
        return self._doubt(mac, station, now_s, ip=ip, ask=unasked)

    def _doubt(self, mac: str, station: _Station, now_s: float, *, ip: str, ask: list[str]) -> list[LanSignal]:
        if not self._lan_up or station.unplugged:
            return []
        if station.doubted_s is None:
            station.doubted_s = now_s
            self._doubtful += ask
        return self._tell(mac, station, now_s, reach="unsure", ip=ip)

    def _stranger(self, event: Neighbour, now_s: float) -> list[LanSignal]:
        """An address that the kernel knows no MAC for. Not a word, unless somebody asked for a device by it."""
        mac, asked_s = self._asked.get(event.ip, (None, 0.0))
        if event.state != "failed" or mac is None or now_s - asked_s > DOUBT_S or not self._lan_up:
            return []
        del self._asked[event.ip]
        station = self._stations.get(mac)
        if station is not None and station.addresses:
            return self._failed(mac, station, now_s, ip=event.ip)
        return [Evidence(source=NAME, seen_at_s=now_s, mac=mac, ip=event.ip, reach="down")]

    def _forwarding(self, event: Forwarding, now_s: float, *, live: bool) -> list[LanSignal]:
        # An event from before a dump may come after it: a frame from a port without carrier is such.
        if event.bridge != self._links.lan or event.port == event.bridge or self._links.is_dark(event.port):
            return []
        station = self._station(event.mac)
        if station is None:
            return []
        moved = station.port != event.port
        station.port, station.in_forwarding = event.port, True
        ip = next(iter(station.addresses), None)
        if live or event.age_s <= FRESH_S:
            return self._alive(event.mac, station, now_s - event.age_s, ip=ip)
        return self._tell(event.mac, station, now_s, reach=None, ip=ip) if moved else []

    def _forwarding_gone(self, event: ForwardingGone, now_s: float) -> list[LanSignal]:
        station = self._stations.get(event.mac)
        if station is None or event.bridge != self._links.lan or station.port != event.port:
            return []
        station.in_forwarding = False
        self._drop_if_empty(event.mac)
        if self._links.is_dark(event.port) or station.unplugged or not station.addresses:
            return []
        # Silent for minutes, or logged off from an access point: worth asking.
        return self._tell(event.mac, station, now_s, reach="unsure", ip=next(iter(station.addresses)))

    def _station(self, mac: str) -> _Station | None:
        station = self._stations.get(mac)
        if station is None:
            if len(self._stations) >= STATIONS_MAX:
                self.refused += 1
                return None
            station = self._stations[mac] = _Station()
        return station

    def _own(self, ip: str, mac: str, station: _Station, state: NeighbourState, now_s: float) -> None:
        station.addresses[ip] = state
        self._owners[ip] = mac
        if len(station.addresses) > ADDRESSES_MAX:
            self._drop_address(next(iter(station.addresses)))
        if not station.settled and station.settles_s is None:
            station.settles_s = now_s + SETTLE_S

    def _drop_address(self, ip: str) -> None:
        mac = self._owners.pop(ip, None)
        if mac is not None:
            del self._stations[mac].addresses[ip]
            self._drop_if_empty(mac)

    def _drop_if_empty(self, mac: str) -> None:
        station = self._stations[mac]
        if not station.addresses and not station.in_forwarding:
            del self._stations[mac]

    def _forget_all_but(self, dump: Sequence[KernelEvent]) -> None:
        addresses = {event.ip for event in dump if isinstance(event, Neighbour) and event.link == self._links.lan}
        macs = {event.mac for event in dump if isinstance(event, Forwarding) and event.bridge == self._links.lan}
        for ip in [ip for ip in self._owners if ip not in addresses]:
            self._drop_address(ip)
        for mac, station in list(self._stations.items()):
            station.in_forwarding = mac in macs
            self._drop_if_empty(mac)

    def _alive(self, mac: str, station: _Station, seen_at_s: float, *, ip: str | None) -> list[LanSignal]:
        if station.unplugged and self._links.is_dark(station.port):
            return []
        station.unplugged = False
        station.doubted_s = None
        station.heard_s = seen_at_s
        return self._tell(mac, station, seen_at_s, reach="up", ip=ip)

    def _known(self, mac: str, station: _Station, now_s: float) -> list[LanSignal]:
        reach: Reach | None = None
        if station.unplugged:
            reach = "down"
        elif station.heard_s is not None and now_s - station.heard_s <= FRESH_S:
            reach = "up"
        return [one for ip in station.addresses for one in self._tell(mac, station, now_s, reach=reach, ip=ip)]

    def _tell(
        self, mac: str, station: _Station, seen_at_s: float, *, reach: Reach | None, ip: str | None, gone: bool = False
    ) -> list[LanSignal]:
        """One piece of evidence, unless it is too early for it, or the LAN is down and nobody is judged."""
        if not station.settled or (reach == "down" and not self._lan_up and not gone):
            return []
        port = self._links.name_of(station.port)
        return [Evidence(source=NAME, seen_at_s=seen_at_s, mac=mac, ip=ip, port=port, reach=reach, gone=gone)]
