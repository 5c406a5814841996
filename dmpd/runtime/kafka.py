"""Kafka clients, made here only (the stream's consumer apart): settings, start-up check, producer.

A wrong password raises nowhere, it only shows in ``error_cb``; a frozen broker shows in nothing. So start-up asks for
the metadata and says in one sentence what is wrong, and health is judged by the age of the last success.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import confluent_kafka
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.settings import KafkaSettings

OnDelivery = Callable[[str | None], None]
Headers = Sequence[tuple[str, bytes | None]]

_REFUSALS: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL)  # noqa: SLF001 - the client's own names
_RECORD_FAULTS: Final = {
    code: str(KafkaError(code).str())
    for code in (
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
    )
}
_SIZE_FAULTS: Final = [
    _RECORD_FAULTS[code]
    for code in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)
]
UNKNOWN_PARTITION: Final = str(KafkaError(KafkaError._UNKNOWN_PARTITION).str())  # noqa: SLF001 - the client's own name
RECORD_TOO_LARGE: Final = _RECORD_FAULTS[KafkaError.MSG_SIZE_TOO_LARGE]
UNREADABLE_HEADERS: Final = ("dmpd-headers-unreadable", b"a header's name is no UTF-8")
"""Stands for the headers of a record that the client cannot give."""
_log = logging.getLogger(__name__)


class KafkaUnreachableError(UnavailableError):
    """No broker answers. Worth another try."""


class KafkaRefusedError(UnavailableError):
    """A broker answers and does not want us: credentials or TLS. A person has to act."""


class ProducerQueueFullError(Exception):
    """The producer's queue is full: serve ``poll`` and try again."""


def is_record_fault(sentence: str) -> bool:
    """Whether a delivery failed for what the record is (too large, invalid) and would again; else Kafka is at fault."""
    return sentence in _RECORD_FAULTS.values()


def is_too_large(sentence: str) -> bool:
    """Whether a delivery failed for the record's size."""
    return sentence in _SIZE_FAULTS


class RecordProducer(Protocol):
    """What the bridge needs of a producer; ``kafka_memory`` has the twin."""

    @property
    def fatal(self) -> str | None:
        """Why this producer can never deliver again, or None. Make a new one then."""

    def produce(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
        on_delivery: OnDelivery,
    ) -> None:
        """Queue one record. ``on_delivery`` runs in ``poll`` or ``flush``: None = acknowledged by all in-sync replicas.

        What the client refuses by itself (too large, no such partition, fatal state) is reported at once, in here.

        Raises:
            ProducerQueueFullError: No room; nothing was queued.
        """

    def poll(self, timeout_s: float) -> int:
        """Run the delivery callbacks that are due; blocks up to ``timeout_s`` for the first. Returns how many."""

    def flush(self, timeout_s: float) -> int:
        """Wait for all deliveries, up to ``timeout_s``; returns how many are still outstanding."""

    def close(self) -> None:
        """Drop what is outstanding, without callbacks, and let go of the client. Bounded."""


def client_config(settings: KafkaSettings, program: str, **overrides: object) -> dict[str, Any]:
    """Settings of librdkafka for a client of ``program``; ``overrides`` use ``_`` for ``.`` and win.

    Raises:
        KafkaRefusedError: The password file or a certificate's file cannot be read.
    """
    found: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": program,
        "security.protocol": settings.security_protocol,
        "topic.metadata.refresh.interval.ms": 10_000,
        "reconnect.backoff.max.ms": 2_000,
        "log_level": 2,  # at 3 the client writes 20 lines per second to stderr while no broker is there; see error_cb
        "error_cb": ErrorLog(program),
    }
    optional = {
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.username,
        "ssl.ca.location": settings.ca_file,
        "ssl.certificate.location": settings.cert_file,
        "ssl.key.location": settings.key_file,
    }
    found |= {name: value for name, value in optional.items() if value is not None}
    for field in ("ca_file", "cert_file", "key_file"):  # the client only says "system lib"
        path = getattr(settings, field)
        if path is not None:
            _read(field, path)
    if settings.password_file is not None:
        found["sasl.password"] = _read("password_file", settings.password_file).decode().strip()
    return found | settings.options | {name.replace("_", "."): value for name, value in overrides.items()}


def _read(field: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise KafkaRefusedError(f"kafka.{field} {path}: {error.strerror}") from error


@contextlib.contextmanager
def making_client(settings: KafkaSettings) -> Iterator[None]:
    """Around the constructor of a client: settings that librdkafka cannot use end in ``KafkaRefusedError``."""
    try:
        yield
    except confluent_kafka.KafkaException as error:
        raise KafkaRefusedError(f"Kafka at {settings.bootstrap_servers}: {error.args[0].str()}") from error


class ErrorLog:
    """``error_cb``: remembers the last refusal and logs each kind of error once in 30 s."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._logged_s: dict[int, float] = {}
        self.refusal: str | None = None

    def __call__(self, error: KafkaError) -> None:
        now_s = time.monotonic()
        if error.code() in _REFUSALS:
            self.refusal = error.str()
        if now_s - self._logged_s.get(error.code(), -60.0) > 30.0:
            self._logged_s[error.code()] = now_s
            _log.warning("%s: Kafka: %s", self._program, error.str())


def ensure_reachable(settings: KafkaSettings, program: str, timeout_s: float) -> None:
    """Ask for the cluster's metadata; returns when it came. Blocks up to ``timeout_s``.

    Raises:
        KafkaRefusedError: Wrong password, user, mechanism or certificate, or a file that cannot be used; says which.
        KafkaUnreachableError: Nobody answers.
    """
    config = client_config(settings, program)
    errors = config["error_cb"]
    with making_client(settings):
        admin = AdminClient(config)
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            admin.list_topics(timeout=min(2.0, timeout_s))
        except confluent_kafka.KafkaException as error:
            admin.poll(0)  # an AdminClient's error_cb runs only here
            if errors.refusal is not None:
                raise KafkaRefusedError(f"Kafka at {settings.bootstrap_servers}: {errors.refusal}") from error
            if time.monotonic() >= deadline_s:
                reason = error.args[0].str() + _listener_hint(settings)
                raise KafkaUnreachableError(f"Kafka at {settings.bootstrap_servers}: {reason}") from error
        else:
            return


def _listener_hint(settings: KafkaSettings) -> str:
    """A broker that hangs up on a wrong protocol looks like no broker at all; an open port tells them apart."""
    host, _, port = settings.bootstrap_servers.partition(",")[0].strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except (OSError, ValueError):  # nobody there, or a list only librdkafka understands: nothing to add
        return ""
    protocol = settings.security_protocol
    return f" (the port is open: the broker is stuck, or kafka.security_protocol {protocol} is not what it speaks)"


class Producer:
    """An idempotent producer that never gives a record up: ``acks=all``, no message timeout, linger 2 ms, lz4."""

    def __init__(self, settings: KafkaSettings, program: str, **overrides: object) -> None:
        defaults: dict[str, object] = {
            "linger_ms": 2,
            "compression_type": "lz4",
            "queue_buffering_max_messages": 500_000,
        }
        safety: dict[str, object] = {"enable_idempotence": True, "acks": "all", "message_timeout_ms": 0}
        config = client_config(settings, program, **(defaults | overrides | safety)) | {"error_cb": self._errored}
        with making_client(settings):
            self._client = confluent_kafka.Producer(config)
        self._closed = False
        self._errors = ErrorLog(program)
        self._fatal: str | None = None

    @property
    def fatal(self) -> str | None:
        return self._fatal

    def produce(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
        on_delivery: OnDelivery,
    ) -> None:
        def report(error: KafkaError | None, _: object) -> None:
            if not self._closed:  # a purged record is reported too, by the next poll
                on_delivery(None if error is None else _sentence(error))

        try:
            self._client.produce(
                topic,
                value,
                key,
                -1 if partition is None else partition,
                headers=list(headers),
                on_delivery=report,
            )
        except BufferError as error:
            raise ProducerQueueFullError from error
        except confluent_kafka.KafkaException as error:
            on_delivery(_sentence(error.args[0]))

    def poll(self, timeout_s: float) -> int:
        try:
            return int(self._client.poll(timeout_s))
        except confluent_kafka.KafkaException as error:
            # A fatal error is raised once by whichever call serves it; the reports behind it are still to come.
            self._errored(error.args[0])
            return 0

    def flush(self, timeout_s: float) -> int:
        try:
            return int(self._client.flush(timeout_s))
        except confluent_kafka.KafkaException as error:
            self._errored(error.args[0])
            return len(self._client)

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(confluent_kafka.KafkaException):  # purging an errored client: it is going anyway
            self._client.purge()

    def _errored(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()
        self._errors(error)


def _sentence(error: KafkaError) -> str:
    """What went wrong. A record's own fault reads the same whether the client or the broker found it."""
    return _RECORD_FAULTS.get(error.code()) or str(error.str())
