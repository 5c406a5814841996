"""Section ``access`` of the cloud's configuration."""

from typing import Annotated

from msgspec import Meta, Struct

from dmpd.runtime.settings import Bind, PositiveSeconds


class AccessSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Grants become rules of one MQTT broker (or cluster)."""

    health_bind: Bind = "127.0.0.1:9103"
    """Of health and metrics; also what keeps a second instance with the same configuration out."""
    cert_file: str = "/etc/dmpd/tls/svc-access.crt"
    """Certificate of ``svc-access``: the broker's host, port and CA are those of the section ``mqtt``."""
    key_file: str = "/etc/dmpd/tls/svc-access.key"
    """Its private key."""
    grant_hours_max: Annotated[float, Meta(gt=0, le=87_600)] = 720.0
    """A grant ends at most so long after it was made."""
    poll_interval_s: Annotated[float, Meta(ge=0.02, le=0.5)] = 0.25
    """Between two looks at the database: how late a revocation is seen at most."""
    full_read_interval_s: PositiveSeconds = 5.0
    """All grants are read anew so often even if nobody said that they changed."""
    statement_timeout_s: Annotated[float, Meta(ge=1, le=60)] = 3.0
    """A database that takes longer counts as away; ends are kept meanwhile."""
    answer_timeout_s: Annotated[float, Meta(ge=0.5, le=60)] = 5.0
    """A broker that takes longer for one change counts as gone."""
    retry_interval_s: Annotated[float, Meta(ge=0.05, le=10)] = 0.3
    """Between two attempts to reach the broker."""
    standby_s: PositiveSeconds = 30.0
    """After somebody took our name over (0x8E), most likely a second daemon: how long it is left in peace."""
    batch_s: Annotated[float, Meta(ge=0, le=1)] = 0.02
    """So long may changes that go to the broker at one go keep it from RAEs, as far as that can be foreseen; 0: one by
    one. With more than a thousand rules it is always one."""
    pause_factor: Annotated[float, Meta(ge=0, le=100)] = 0.5
    """After changes that give: a pause of this many times as long as they keep the broker, so that RAEs are served.
    What takes away waits for nothing."""
    reread_interval_s: PositiveSeconds = 60.0
    """The broker's rules are read anew so often: what others changed is put right."""
    events_max: Annotated[int, Meta(ge=100, le=1_000_000)] = 20_000
    """Lines of the audit that wait for the database; the newest beyond it are counted and dropped."""
