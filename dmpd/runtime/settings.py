"""Sections of the configuration that several programs share: how to reach Kafka, the MQTT broker and the database.

Every field states its unit; the docstring under it its meaning and what happens when it is wrong. Programs add sections
of their own; ``cli`` puts the sections together to whole files.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Port = Annotated[int, Meta(ge=1, le=65_535)]
PositiveInt = Annotated[int, Meta(ge=1)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Kafka."""

    bootstrap_servers: Annotated[str, Meta(min_length=1)] = "127.0.0.1:9092"
    """``host:port`` list, comma separated."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    username: str | None = None
    password_file: str | None = None
    """File that holds the password; read at start and at reload."""
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    options: dict[str, str | int | float | bool] = {}
    """Raw librdkafka settings, for what has no field here. They win over everything but what safety needs."""


class TopicSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of dmpd's Kafka topics and how ``dmpd migrate`` creates them."""

    info: str = "dmp.info"
    rsp: str = "dmp.rsp"
    cmd: str = "dmp.cmd"
    info_dead: str = "dmp.info.dead"
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = 12
    replication_factor: Annotated[int, Meta(ge=1, le=100)] = 3
    min_insync_replicas: Annotated[int, Meta(ge=1, le=100)] = 2
    retention_hours: Annotated[int, Meta(ge=1, le=87_600)] = 168
    max_message_bytes: Annotated[int, Meta(ge=300_000, le=100_000_000)] = 1_048_576


class MqttSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the MQTT broker: TLS 1.2 or later, mutual; the certificate's CN is the principal."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Port = 8883
    ca_file: str = "/etc/dmpd/tls/ca.crt"
    cert_file: str = "/etc/dmpd/tls/client.crt"
    key_file: str = "/etc/dmpd/tls/client.key"
    keepalive_s: Annotated[int, Meta(ge=5, le=600)] = 20
    connect_timeout_s: PositiveSeconds = 10.0


class DatabaseSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach PostgreSQL or CockroachDB."""

    conninfo: Annotated[str, Meta(min_length=1)] = "host=127.0.0.1 dbname=dmpd user=dmpd_registry"
    """libpq connection string or URL, without a password."""
    password_file: str | None = None
    connect_timeout_s: Annotated[int, Meta(ge=1, le=300)] = 5
    statement_timeout_s: PositiveSeconds = 30.0
    prepare: bool = True
    """False behind a PgBouncer that does not know prepared statements."""


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
