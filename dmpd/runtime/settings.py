"""Sections of the configuration that several programs share: how to reach Kafka, the MQTT broker and the database.

Every field states its unit; the docstring under it its meaning and what happens when it is wrong. Programs add sections
of their own; ``cli`` puts the sections together to whole files.
"""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

Port = Annotated[int, Meta(ge=1, le=65_535)]
Bind = Annotated[
    str,
    Meta(
        pattern=r"^(unix:[^\0]+|[^\s]*:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5]?[0-9]{1,4}))$",
        extra={"expected": "host:port or unix:/path"},
    ),
]
"""Where a server of ours listens; what ``runtime.health.parse_bind`` takes."""
PositiveInt = Annotated[int, Meta(ge=1)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]


_PASSWORD: Final = re.compile(r"(^|[\s?&])password\s*=|^[a-z]+://[^/@]*:[^/@]+@")
"""In a libpq connection string, or in its URL form."""


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Kafka."""

    bootstrap_servers: Annotated[str, Meta(min_length=1)] = "127.0.0.1:9092"
    """``host:port`` list, comma separated."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """A wrong one shows as an unreachable broker."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """Needed with ``SASL_…``."""
    username: str | None = None
    """SASL user."""
    password_file: str | None = None
    """File that holds the password; read at start and at reload."""
    ca_file: str | None = None
    """CA that the brokers' certificates must come from; absent = the system's."""
    cert_file: str | None = None
    """Client certificate, for brokers that want one."""
    key_file: str | None = None
    """Its private key."""
    options: dict[str, str | int | float | bool] = {}
    """Raw librdkafka settings, for what has no field here. They win over everything but what safety needs."""

    def __post_init__(self) -> None:
        if "sasl.password" in self.options:
            raise ValueError("options: expected no sasl.password; put it into a file and name that as password_file")


class TopicSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of dmpd's Kafka topics and how ``dmpd migrate`` creates them."""

    info: str = "dmp.info"
    """What RAEs say of their devices and of themselves."""
    rsp: str = "dmp.rsp"
    """Responses to requests."""
    cmd: str = "dmp.cmd"
    """Requests to RAEs."""
    info_dead: str = "dmp.info.dead"
    """What could not be used, each with its reason."""
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = 12
    """Of each topic: at most so many workers run at once, over all instances."""
    replication_factor: Annotated[int, Meta(ge=1, le=100)] = 3
    """Brokers that hold each record; a cluster of fewer refuses to make the topics."""
    min_insync_replicas: Annotated[int, Meta(ge=1, le=100)] = 2
    """Brokers that must have a record before it counts as stored."""
    retention_hours: Annotated[int, Meta(ge=1, le=87_600)] = 168
    """How long Kafka keeps records; a Cloud Registry that is away for longer loses what lies between."""
    max_message_bytes: Annotated[int, Meta(ge=300_000, le=100_000_000)] = 1_048_576
    """Largest record, bytes; payloads are at most 256 KiB, headers and keys come on top."""


class MqttSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the MQTT broker: TLS 1.2 or later, mutual; the certificate's CN is the principal."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """Name or address of the broker; its certificate must carry it."""
    port: Port = 8883
    """Its TLS port."""
    ca_file: str = "/etc/dmpd/tls/ca.crt"
    """CA of the broker's certificate."""
    cert_file: str = "/etc/dmpd/tls/client.crt"
    """Our certificate; its CN is our name."""
    key_file: str = "/etc/dmpd/tls/client.key"
    """Its private key."""
    keepalive_s: Annotated[int, Meta(ge=5, le=600)] = 20
    """A link without answers is noticed after about twice this time."""
    connect_timeout_s: PositiveSeconds = 10.0
    """For TCP with TLS, and again for the broker's CONNACK."""


class DatabaseSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach PostgreSQL or CockroachDB."""

    conninfo: Annotated[str, Meta(min_length=1)] = "host=127.0.0.1 dbname=dmpd user=dmpd_registry"
    """libpq connection string or URL, without a password."""
    password_file: str | None = None
    """File that holds the password."""
    connect_timeout_s: Annotated[int, Meta(ge=1, le=300)] = 5
    """For each address of the host."""
    statement_timeout_s: PositiveSeconds = 30.0
    """The server cancels what takes longer, and the transaction is tried again."""
    prepare: bool = True
    """False behind a PgBouncer that does not know prepared statements."""

    def __post_init__(self) -> None:
        if _PASSWORD.search(self.conninfo):
            raise ValueError("conninfo: expected no password in it; put it into a file and name that as password_file")

    @property
    def answer_timeout_s(self) -> float:
        """How long a connection waits for one answer: a server that works has cancelled the statement by then."""
        return 1.5 * self.statement_timeout_s + 1.0


class CaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The CA that dmpd brings (``dmpctl access ca``), and the list of revoked certificates that the broker reads."""

    folder: Annotated[str, Meta(min_length=1)] = "/etc/dmpd/ca"
    """Where the CA lives, with its private key: best on a machine of its own."""
    crl_file: str | None = None
    """The broker's ``crlfile``: ``revoke`` writes it, its end is watched (a foreign PKI's too). Absent: neither."""
    reload_command: list[str] = []
    """Program and arguments, without a shell, that send the broker its HUP; done when the signal was sent."""
    reload_timeout_s: PositiveSeconds = 30.0
    """After it ``reload_command`` is killed, and counts as failed."""


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least grave that is written."""
    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object each for collectors."""
