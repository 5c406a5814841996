"""A device's UPnP description and the state of its DIAL app, as XML bytes. Pure, and never an exception.

XML of strangers: at most 64 KiB, no DTD and so no entities but the five of XML itself, no deep nesting, no long
texts; only what stands at the expected place is kept. Source: UPnP Device Architecture 2.0 §2.3, DIAL 2.2.1 §6.1.2.
"""

from collections.abc import Iterable
from typing import Final, Literal, NoReturn
from xml.parsers import expat

from msgspec import Struct

from dmpd.local_registry.sources.clean import clean_text

BODY_BYTES_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 16
ELEMENTS_MAX: Final = 2048
TEXT_LENGTH_MAX: Final = 256

_DEVICE: Final = ("root", "device")
_SERVICE: Final = ("service",)


class Description(Struct, frozen=True, kw_only=True):
    """What the root device says of itself; never empty."""

    name: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    udn: str | None = None
    """Without its ``uuid:``."""


class DialApp(Struct, frozen=True, kw_only=True):
    """One DIAL app on the device."""

    name: str
    state: Literal["running", "stopped", "hidden", "installable"]
    stoppable: bool = False


class _RefusedError(Exception):
    """The document holds what no description needs."""


def parse_description(body: bytes) -> Description | None:
    """The description of the root device, or None if the document has none. Embedded devices do not count."""
    wanted = {name: (*_DEVICE, name) for name in ("friendlyName", "manufacturer", "modelName", "UDN")}
    found = _texts(body, wanted.values())
    if found is None:
        return None
    udn = found.get(wanted["UDN"])
    description = Description(
        name=found.get(wanted["friendlyName"]),
        manufacturer=found.get(wanted["manufacturer"]),
        model=found.get(wanted["modelName"]),
        udn=None if udn is None else udn.removeprefix("uuid:").strip() or None,
    )
    return None if description == Description() else description


def parse_app(body: bytes) -> DialApp | None:
    """The app that a DIAL server describes, or None."""
    paths = {"name": (*_SERVICE, "name"), "state": (*_SERVICE, "state")}
    reader = _Reader(paths.values())
    if not reader.read(body):
        return None
    name, state = reader.texts.get(paths["name"]), (reader.texts.get(paths["state"]) or "").lower()
    if state.startswith("installable"):
        state = "installable"
    if name is None or state not in ("running", "stopped", "hidden", "installable"):
        return None
    stoppable = reader.attributes.get((*_SERVICE, "options"), {}).get("allowStop") == "true"
    return DialApp(name=name, state=state, stoppable=stoppable)  # type: ignore[arg-type]  # one of the four


def parse_instance(body: bytes) -> str | None:
    """What a DIAL server says of how its running app is addressed: the ``href`` of its ``run`` link, or None."""
    reader = _Reader(())
    if not reader.read(body):
        return None
    link = reader.attributes.get((*_SERVICE, "link"), {})
    return link.get("href") if link.get("rel") == "run" else None


def _texts(body: bytes, wanted: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str] | None:
    reader = _Reader(wanted)
    return reader.texts if reader.read(body) else None


class _Reader:
    """Collects the first text at each wanted place, and the attributes of ``service/options`` and ``link``."""

    def __init__(self, wanted: Iterable[tuple[str, ...]]) -> None:
        self._wanted = frozenset(wanted)
        self._path: list[str] = []
        self._elements = 0
        self._text: list[str] = []
        self._length = 0
        self.texts: dict[tuple[str, ...], str] = {}
        self.attributes: dict[tuple[str, ...], dict[str, str]] = {}

    def read(self, body: bytes) -> bool:
        """Read a document; False if it is none, or one that is refused."""
        if len(body) > BODY_BYTES_MAX:
            return False
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.ExternalEntityRefHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(body, True)
        except (expat.ExpatError, _RefusedError, ValueError, LookupError):  # the last two: encodings that Python lacks
            return False
        return True

    @staticmethod
    def _refuse(*_what: object) -> NoReturn:
        raise _RefusedError

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        self._path.append(name.rpartition(":")[2])
        if self._elements > ELEMENTS_MAX or len(self._path) > DEPTH_MAX:
            raise _RefusedError
        self._text, self._length = [], 0
        path = tuple(self._path)
        if path in ((*_SERVICE, "options"), (*_SERVICE, "link")):
            self.attributes.setdefault(path, attributes)

    def _end(self, name: str) -> None:
        path = tuple(self._path)
        self._path.pop()
        if path in self._wanted and path not in self.texts:
            text = clean_text("".join(self._text), length_max=TEXT_LENGTH_MAX)
            if text is not None:
                self.texts[path] = text
        self._text, self._length = [], 0

    def _characters(self, text: str) -> None:
        if self._length <= TEXT_LENGTH_MAX:
            self._text.append(text)
            self._length += len(text)
