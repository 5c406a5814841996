"""What SSDP messages and descriptions say of devices, and what silence says. Pure; ``now_s`` is monotonic, passed in.

A *speaker* is a MAC that announced services. The rules:

- Whatever it sends is a sign of life; told when it brings news, else at most each 10 s. News has a budget per speaker:
  who changes its mind all the time changes its record seldom.
- ``byebye`` of the last service is believed when the speaker, asked at once, says nothing for 2 s: anybody on the LAN
  can send a byebye in another's name. The same when all services are over their age, and searches went unanswered.
- A speaker that fell silent sleeps if it told how to wake it, else it is in standby; that it is gone, SSDP cannot know.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

from dmpd.local_registry.source import Evidence, Reach
from dmpd.local_registry.sources.dial_description import Description, DialApp
from dmpd.local_registry.sources.ssdp_gate import Bucket
from dmpd.local_registry.sources.ssdp_message import DIAL_TARGET, ROOT_TARGET, SsdpMessage, Wakeup

NAME: Final = "ssdp"
ESN_SOURCE: Final = "mdx"
SPEAKERS_MAX: Final = 1024
SERVICES_MAX: Final = 32
"""Services kept per speaker; beyond, the one heard of longest ago is forgotten."""
SIGN_INTERVAL_S: Final = 10.0
NEWS_BURST: Final = 6.0
NEWS_PER_S: Final = 0.1
BYEBYE_WAIT_S: Final = 2.0
UNANSWERED_MIN: Final = 3
"""Searches without an answer before age alone ends a service: one that was lost proves nothing."""
UNANSWERED_INTERVAL_S: Final = 5.0
"""Searches closer together than this count as one."""

_json = msgspec.json.Encoder()


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    ip: str
    esn: str | None = None
    name: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    attributes: dict[str, bytes] = {}


class _Speaker:
    __slots__ = (
        "app",
        "asked_s",
        "description",
        "dial_location",
        "esn",
        "from_dial",
        "ip",
        "name",
        "news",
        "services",
        "silent_at_s",
        "told",
        "told_s",
        "unanswered",
        "wakeup",
    )

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.services: dict[tuple[str, str], float] = {}
        """When each ends, by uuid and target; the one heard of longest ago first."""
        self.esn: str | None = None
        self.name: str | None = None
        self.wakeup: Wakeup | None = None
        self.description = Description()
        self.from_dial = False
        self.dial_location: str | None = None
        self.app: DialApp | None = None
        self.news = Bucket(per_s=NEWS_PER_S, burst=NEWS_BURST)
        self.told: _Facts | None = None
        self.told_s = 0.0
        self.unanswered = 0
        self.asked_s = 0.0
        self.silent_at_s: float | None = None

    def facts(self) -> _Facts:
        attributes: dict[str, bytes] = {}
        if self.description.udn is not None:
            attributes["udn"] = _json.encode(self.description.udn)
        if self.wakeup is not None:
            attributes["wakeup"] = _json.encode(self.wakeup)
        if self.app is not None:
            attributes["dial_app"] = _json.encode(self.app)
        return _Facts(
            ip=self.ip,
            esn=self.esn,
            name=self.name or self.description.name,
            manufacturer=self.description.manufacturer,
            model=self.description.model,
            attributes=attributes,
        )


class SsdpBook:
    """All speakers of one LAN. Not thread-safe. Invariant: at most 1024 speakers with at most 32 services each."""

    def __init__(self) -> None:
        self._speakers: dict[str, _Speaker] = {}
        self._doubtful: list[str] = []
        self.refused = 0
        """Messages of speakers beyond what the book holds."""

    def heard(self, message: SsdpMessage, *, ip: str, mac: str, now_s: float) -> list[Evidence]:
        """Take in a message that came from ``ip``, which the kernel knows to be ``mac``."""
        service = (message.uuid, message.target)
        speaker = self._speakers.get(mac)
        if message.kind == "byebye":
            if speaker is not None and speaker.services.pop(service, None) is not None and not speaker.services:
                speaker.silent_at_s = now_s + BYEBYE_WAIT_S
                self._doubtful.append(speaker.ip)
            return []
        if speaker is None:
            if len(self._speakers) >= SPEAKERS_MAX:
                self.refused += 1
                return []
            speaker = self._speakers[mac] = _Speaker(ip)
        speaker.ip = ip
        speaker.unanswered, speaker.silent_at_s = 0, None
        speaker.services.pop(service, None)
        speaker.services[service] = now_s + message.max_age_s
        if len(speaker.services) > SERVICES_MAX:
            del speaker.services[next(iter(speaker.services))]
        speaker.esn = message.esn or speaker.esn
        speaker.name = message.name or speaker.name
        speaker.wakeup = message.wakeup or speaker.wakeup
        if message.target == DIAL_TARGET:
            speaker.dial_location = message.location or speaker.dial_location
        return self._tell(mac, speaker, now_s)

    def described(
        self, description: Description, app: DialApp | None, *, mac: str, from_dial: bool, now_s: float
    ) -> list[Evidence]:
        """Take in what ``mac`` answered when asked for a description; the one its DIAL service names counts most.

        It says nothing of who is alive: it took its time, and the device may have another MAC by now.
        """
        speaker = self._speakers.get(mac)
        if speaker is None or (speaker.from_dial and not from_dial):
            return []
        speaker.description, speaker.from_dial = description, from_dial
        speaker.app = app or speaker.app
        return self._tell(mac, speaker, now_s, reach=None)

    def wants_description(self, message: SsdpMessage, mac: str) -> bool:
        """Whether the description that ``message`` points to is worth asking for: DIAL's, or any if there is none."""
        speaker = self._speakers.get(mac)
        if speaker is None or message.location is None or message.kind == "byebye":
            return False
        if message.target == DIAL_TARGET:
            return True
        announced = any(target == DIAL_TARGET for _uuid, target in speaker.services)
        return message.target == ROOT_TARGET and not announced and speaker.description == Description()

    def dial_location(self, mac: str) -> str | None:
        """Where ``mac`` said that its DIAL service is described: to be judged before use."""
        speaker = self._speakers.get(mac)
        return None if speaker is None else speaker.dial_location

    def asked(self, now_s: float, *, mac: str | None = None) -> None:
        """A search was sent to ``mac``, or to all."""
        speakers: Sequence[_Speaker | None] = (
            [self._speakers.get(mac)] if mac is not None else list(self._speakers.values())
        )
        for speaker in speakers:
            if speaker is not None and now_s - speaker.asked_s >= UNANSWERED_INTERVAL_S:
                speaker.asked_s = now_s
                speaker.unanswered += 1

    def speaks(self, mac: str) -> bool:
        """Whether ``mac`` answered when it was last asked."""
        speaker = self._speakers.get(mac)
        return speaker is not None and speaker.unanswered <= 1 and speaker.silent_at_s is None

    def tick(self, now_s: float) -> list[Evidence]:
        """Let time pass: services end by age, and who said nothing more is silent. Call a few times a second."""
        found: list[Evidence] = []
        for mac, speaker in list(self._speakers.items()):
            if speaker.silent_at_s is None and speaker.unanswered >= UNANSWERED_MIN:
                speaker.services = {key: end_s for key, end_s in speaker.services.items() if end_s > now_s}
                if not speaker.services:
                    speaker.silent_at_s = now_s
            if speaker.silent_at_s is not None and now_s >= speaker.silent_at_s:
                del self._speakers[mac]
                power: Literal["standby", "asleep"] = "asleep" if speaker.wakeup is not None else "standby"
                found.append(Evidence(source=NAME, seen_at_s=now_s, mac=mac, ip=speaker.ip, power=power))
        return found

    def take_doubtful(self) -> list[str]:
        """Addresses to ask at once, because somebody said in their name that they leave; each is given once."""
        taken, self._doubtful = self._doubtful, []
        return taken

    def known(self) -> Iterator[Evidence]:
        """Everything told of those who speak; says nothing on who is alive."""
        for mac, speaker in self._speakers.items():
            if speaker.told is not None:
                yield _evidence(mac, speaker.told, seen_at_s=speaker.told_s, reach=None)

    def _tell(self, mac: str, speaker: _Speaker, now_s: float, *, reach: Reach | None = "up") -> list[Evidence]:
        facts = speaker.facts()
        if facts != speaker.told and speaker.news.take(now_s):
            speaker.told = facts
        elif speaker.told is None or now_s - speaker.told_s < SIGN_INTERVAL_S:
            return []
        speaker.told_s = now_s
        return [_evidence(mac, speaker.told, seen_at_s=now_s, reach=reach)]


def _evidence(mac: str, facts: _Facts, *, seen_at_s: float, reach: Reach | None) -> Evidence:
    return Evidence(
        source=NAME,
        seen_at_s=seen_at_s,
        mac=mac,
        ip=facts.ip,
        esn=facts.esn,
        esn_source=None if facts.esn is None else ESN_SOURCE,
        manufacturer=facts.manufacturer,
        model=facts.model,
        name=facts.name,
        attributes=facts.attributes,
        reach=reach,
        power=None if reach is None else "on",
    )
