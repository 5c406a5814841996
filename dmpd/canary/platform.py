"""What a run asks of the platform before it begins, and of the Cloud Registry while it runs. All of it blocks."""

import re
from pathlib import Path
from typing import Final

from msgspec import Struct

from dmpd.canary.plan import rae_of
from dmpd.canary.report import Reason
from dmpd.canary.settings import CanarySettings
from dmpd.runtime import health
from dmpd.runtime.settings import DatabaseSettings, KafkaSettings, MqttSettings, TopicSettings

_DEATHS: Final = re.compile(rb"^dmpd_stream_worker_deaths_total(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


class Platform(Struct, frozen=True, kw_only=True):
    """How a run reaches what it is to judge."""

    kafka: KafkaSettings
    topics: TopicSettings
    mqtt: MqttSettings
    """Of the broker; the certificate is that of somebody else, and is not used."""
    database: DatabaseSettings
    group: str
    """The Cloud Registry's, whose lag is followed."""
    registry_bind: str | None = None
    """Where the Cloud Registry of this machine tells of itself; without it, deaths of its workers are not seen."""


def missing_certificates(settings: CanarySettings) -> Reason | None:
    """Says what is missing, if anything is, and how to get it."""
    folder = Path(settings.certificates_dir)
    needed = settings.clients + settings.control_clients
    if not folder.is_dir():
        sentence = f"canary.certificates_dir {folder}: no such folder; {needed} certificates are needed"
    else:
        there = {path.stem for path in folder.glob("canary-*.crt")} & {
            path.stem for path in folder.glob("canary-*.key")
        }
        missing = [number for number in range(1, needed + 1) if rae_of(number) not in there]
        if not missing:
            return None
        sentence = (
            f"canary.certificates_dir {folder}: {len(missing)} of {needed} certificates are missing, the first is"
            f" {rae_of(missing[0])}.crt or its key ({settings.clients} clients and {settings.control_clients} of the"
            " control group)"
        )
    return Reason(name="certificates", word="unknown", sentence=sentence)


def draining(platform: Platform) -> Reason | None:
    """A Cloud Registry that is on its way out would be judged for it: not now."""
    if platform.registry_bind is None:
        return None
    try:
        _, body = health.fetch(platform.registry_bind, "/readyz")
    except OSError:
        return None  # elsewhere, or not there at all, which the run will show
    if b"draining" not in body:
        return None
    return Reason(name="draining", word="unknown", sentence="the Cloud Registry is draining: not during a deployment")


def worker_deaths(platform: Platform) -> int | None:
    """So many workers of the Cloud Registry died since it began; ``None``: it cannot be asked."""
    if platform.registry_bind is None:
        return None
    try:
        _, body = health.fetch(platform.registry_bind, "/metrics")
    except OSError:
        return None
    return int(sum(float(value) for value in _DEATHS.findall(body)))
