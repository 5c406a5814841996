"""The links of one LAN: its interface, the ports of its bridge, and whether the LAN as a whole is up. Pure."""

from collections.abc import Sequence

from dmpd.local_registry.sources.kernel_events import LinkGone, LinkState


class LanLinks:
    """All links that the kernel has, seen from the LAN interface ``interface`` (a bridge, or a plain interface)."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._links: dict[int, LinkState] = {}
        self.lan: int | None = None
        """Index of the LAN interface; None while there is none of that name."""

    def apply(self, event: LinkState | LinkGone) -> bool:
        """Take in an event; returns whether a working port of the LAN was lost by it."""
        worked = self._works(event.index)
        self._links.pop(event.index, None)
        if isinstance(event, LinkState):
            self._links[event.index] = event
        self._find_lan()
        return worked and not self._works(event.index)

    def replace(self, links: Sequence[LinkState]) -> None:
        """Begin anew with exactly these."""
        self._links = {link.index: link for link in links}
        self._find_lan()

    def missing_from(self, links: Sequence[LinkState]) -> list[int]:
        """Indexes of links known here that are not among ``links``."""
        present = {link.index for link in links}
        return [index for index in self._links if index not in present]

    def is_up(self) -> bool:
        """Whether any device can be reached over this LAN at all."""
        lan = self._links.get(self.lan or 0)
        if lan is None or not (lan.up and lan.carrier):
            return False
        # A bridge reports its lost carrier up to a second after its last port did.
        ports = [link for link in self._links.values() if link.master == lan.index]
        return not ports or any(port.up and port.carrier for port in ports)

    def is_bridge(self) -> bool:
        """Whether the LAN has ports, so that every device that sent anything lately is known by one of them."""
        return any(link.master == self.lan for link in self._links.values() if self.lan is not None)

    def is_dark(self, port: int | None) -> bool:
        """Whether ``port`` is known to have no carrier, or to be gone: no frame can come from there."""
        if port is None:
            return False
        link = self._links.get(port)
        return link is None or not link.carrier

    def name_of(self, port: int | None) -> str | None:
        link = self._links.get(port or 0)
        return None if link is None else link.name

    def _find_lan(self) -> None:
        self.lan = next((link.index for link in self._links.values() if link.name == self._interface), None)

    def _works(self, index: int) -> bool:
        link = self._links.get(index)
        return link is not None and link.up and link.carrier and self.lan is not None and link.master == self.lan
