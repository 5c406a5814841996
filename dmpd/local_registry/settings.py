"""What the configuration file of a RAE may say (``/etc/dmpd/local-registry.yaml``): one Struct is the whole file."""

from typing import Annotated, Final, get_args

from msgspec import Meta, Struct, field

from dmpd.model.principals import is_rae
from dmpd.model.requests import REGISTRY, RaeVerb, SessionVerb
from dmpd.runtime.settings import LogSettings, MqttSettings, PositiveInt, PositiveSeconds

PRINCIPAL_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\*?\Z"


class LanSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The LAN whose devices are watched."""

    interface: str | None = None
    """Network interface of the LAN (a bridge, usually); absent = no neighbour feed and no probing."""
    lease_file: str | None = None
    """dnsmasq's lease file; absent = no leases are read."""
    lease_socket: str | None = None
    """Socket to make for dnsmasq's script ``lease_hook``, in ``state_dir``: leases are told at once and with the vendor
    class; needs ``lease_file``, absent = off."""
    ssdp: bool = True
    """Ask devices by SSDP for their ESN, name, maker and model; needs ``interface``."""
    ssdp_search_interval_s: Annotated[float, Meta(ge=5, le=3600)] = 60.0
    """All devices of the LAN together are asked so often; each alone when it arrives, and when it is probed."""
    ssdp_descriptions: bool = True
    """Fetch the descriptions that devices point to, from themselves alone."""
    esn_wait_s: Annotated[float, Meta(ge=0, le=5)] = 0.5
    """A new device is onboarded so long after its lease at the latest, or when its ESN is known; 0 = at once."""
    oui_file: str = "/usr/share/ieee-data/oui.txt"
    """IEEE's table of vendors by MAC, or the compact form ``002272 Name``; where it is absent no vendors are told."""


class PresenceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a device counts as online or offline."""

    grace_s: PositiveSeconds = 60.0
    """From the last sign of life until a device that does not answer is published as offline."""
    restart_grace_s: PositiveSeconds = 10.0
    """From the start of the program until a device not yet seen again is published as unknown."""
    silent_s: PositiveSeconds = 180.0
    """From the start until a device of which no source says anything is judged offline."""
    probe_interval_s: PositiveSeconds = 20.0
    """A device that gave no sign of life for this long is probed."""
    probe_interval_max_s: PositiveSeconds = 900.0
    """Upper bound of the doubling interval between probes of a device that is offline."""
    probes_per_s: PositiveInt = 50
    """Probes of all devices together."""
    leave_after_s: Annotated[float, Meta(ge=1)] = 30 * 86_400.0
    """Offline this long, a device session ends as ``left``."""


class OutboxSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of what waits for the uplink; over them a device's unsent changes become one checkpoint."""

    rows_max: Annotated[int, Meta(ge=100, le=10_000_000)] = 50_000
    """Rows in all; events may fill a tenth of them."""
    bytes_max: Annotated[int, Meta(ge=1 << 20)] = 64 << 20
    """Bytes of their payloads."""
    age_max_s: Annotated[float, Meta(ge=60)] = 7 * 86_400.0
    """A session's changes that have waited longer become one checkpoint."""


class RequestSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask this RAE for what, and how much at once."""

    session_verbs: list[SessionVerb] = field(default_factory=lambda: list(get_args(SessionVerb)))
    """Verbs of device sessions that are executed, for whomever the broker lets ask; all others are refused."""
    rae_verbs: list[RaeVerb] = field(default_factory=lambda: list(get_args(RaeVerb)))
    """Verbs of the RAE itself that are executed; all others are refused."""
    rae_verbs_from: list[Annotated[str, Meta(pattern=PRINCIPAL_PATTERN)]] = field(
        default_factory=lambda: [REGISTRY, "op-*"]
    )
    """Principals who may ask for verbs of the RAE itself; a ``*`` at the end stands for any rest of the name."""
    at_once_max: Annotated[int, Meta(ge=1, le=256)] = 16
    """Requests that run at once, one per device session; the others wait for their turn."""
    waiting_max: Annotated[int, Meta(ge=1, le=10_000)] = 256
    """Requests accepted and not yet answered for good; what comes beyond is refused."""
    per_requester_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Requests of one requester in 24 h, for so long each is remembered; what comes beyond is refused."""
    remembered_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    """Requests of all requesters in 24 h; some 300 bytes each on the disk."""


class LocalRegistrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One RAE."""

    rae: Annotated[str, Meta(max_length=64)] = ""
    """Serial of this RAE: the CN of its certificate, and the third level of all its topics. Empty = not enrolled yet:
    the program waits, degraded, for ``dmpctl enroll SERIAL``."""
    state_dir: Annotated[str, Meta(min_length=1)] = "/var/lib/dmpd"
    """Folder of the database, identity.json, the lock and the control socket; survives upgrades."""
    mqtt: MqttSettings = MqttSettings()
    lan: LanSettings = LanSettings()
    presence: PresenceSettings = PresenceSettings()
    outbox: OutboxSettings = OutboxSettings()
    requests: RequestSettings = RequestSettings()
    checkpoint_interval_s: Annotated[float, Meta(ge=1, le=86_400)] = 600.0
    """Each device session is published whole once per interval, spread by a hash of its id; so is the roster."""
    status_interval_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    """The RAE's own status is published so often, and when it changes."""
    commit_interval_s: Annotated[float, Meta(ge=0, le=1)] = 0.02
    """Changes closer together than this share one transaction (one flush of the disk)."""
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        if self.rae and not is_rae(self.rae):
            raise ValueError(f"rae: expected the serial of a RAE, got {self.rae!r}")
