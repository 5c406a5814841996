"""Kafka's administration as dmpd needs it: make topics, describe them, ends of partitions, lag of a group.

An answer that failed is taken apart (``_answer``) and never raised by its future: the future, its error and that
error's frames would refer to each other, and keep the client with its threads and connections until some later garbage
collection, which may run in a thread of another client.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Final, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType
from msgspec import Struct

from dmpd.runtime import kafka_committed
from dmpd.runtime.kafka import KafkaUnreachableError, client_config, making_client
from dmpd.runtime.settings import KafkaSettings

_TIMEOUT_S: Final = 15.0
_T = TypeVar("_T")
_MISSING: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)  # noqa: SLF001 - the client's own name


class TopicSpec(Struct, frozen=True, kw_only=True):
    """How a topic should be, or is. ``config`` holds Kafka's own names and texts."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str] = {}


def create_topics(settings: KafkaSettings, topics: Sequence[TopicSpec]) -> list[str]:
    """Create what is absent and return its names; what exists stays as it is. Blocks; safe with two at once.

    Raises:
        KafkaUnreachableError: No answer, or the broker refuses; says which topic.
    """
    admin = _admin(settings)
    wanted = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=topic.replication_factor,
            config=dict(topic.config),
        )
        for topic in topics
    ]
    created = []
    for name, answer in admin.create_topics(wanted, operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S).items():
        error = answer.exception()
        if isinstance(error, confluent_kafka.KafkaException) and (
            error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
        ):
            continue
        _answer(answer, f"topic {name}")
        created.append(name)
    return created


def list_topics(settings: KafkaSettings) -> set[str]:
    """Names of all topics that we may see. Blocks; makes none, also where the broker makes those it is asked for."""
    try:
        return set(_admin(settings).list_topics(timeout=_TIMEOUT_S).topics)
    except confluent_kafka.KafkaException as error:
        raise KafkaUnreachableError(f"{settings.bootstrap_servers}: {error.args[0].str()}") from error


def describe(settings: KafkaSettings, names: Sequence[str]) -> dict[str, TopicSpec]:
    """The topics of ``names`` that exist, with their whole configuration. Blocks."""
    admin = _admin(settings)
    try:
        known = admin.list_topics(timeout=_TIMEOUT_S).topics
        found = [name for name in names if name in known]
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
        answers = admin.describe_configs(resources, request_timeout=_TIMEOUT_S) if resources else {}
    except confluent_kafka.KafkaException as error:
        raise KafkaUnreachableError(f"{settings.bootstrap_servers}: {error.args[0].str()}") from error
    configs = {one.name: _answer(answer, settings.bootstrap_servers) for one, answer in answers.items()}
    return {
        name: TopicSpec(
            name=name,
            partitions=len(known[name].partitions),
            replication_factor=min(len(one.replicas) for one in known[name].partitions.values()),
            config={entry.name: entry.value for entry in configs[name].values() if entry.value is not None},
        )
        for name in found
    }


class Progress(Struct, frozen=True):
    """Of a group in one topic, by partition."""

    ends: Mapping[int, int]
    """The next offset to be written."""
    next: Mapping[int, int]
    """The next offset that the group will read; of a partition without a commit, where its log begins."""

    def lag(self) -> dict[int, int]:
        """Records that are not committed yet."""
        return {number: end - self.next[number] for number, end in self.ends.items()}


class GroupProgress:
    """Asks again and again over the same clients, by one thread at a time.

    What is committed is asked by a consumer that never joins, not by ``list_consumer_group_offsets``: librdkafka frees
    an admin request to a coordinator twice when it times out, and ends the process (SIGSEGV in ``rdk:main``, or the
    assertion ``eonce->refcnt > 0``; confluent-kafka-python issue 1640, seen with 2.16.1 while Kafka restarted).
    """

    def __init__(self, settings: KafkaSettings, group: str, topic: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Raises ``KafkaRefusedError``."""
        self._admin = _admin(settings)
        with making_client(settings):
            self._member = confluent_kafka.Consumer(
                client_config(settings, "dmpd-admin") | {"group.id": group, "enable.auto.commit": False}
            )
        self._group = group
        self._topic = topic
        self._timeout_s = timeout_s

    def ask(self) -> Progress:
        """As of now. Blocks, ``timeout_s`` for each of its four questions at most.

        Raises:
            KafkaUnreachableError: No answer, or no such topic.
        """
        topic, timeout_s = self._topic, self._timeout_s
        partitions = _partitions(self._admin, topic, timeout_s)
        ends = _offsets(self._admin, topic, OffsetSpec.latest(), partitions, timeout_s)
        begins = _offsets(self._admin, topic, OffsetSpec.earliest(), partitions, timeout_s)
        asked = [TopicPartition(topic, number) for number in partitions]
        try:
            found = kafka_committed.committed(self._member, asked, timeout_s)
        except confluent_kafka.KafkaException as error:
            raise KafkaUnreachableError(f"group {self._group}: {error.args[0].str()}") from error
        committed = {one.partition: one.offset for one in found if one.offset >= 0}
        return Progress(ends, begins | committed)


def list_end_offsets(settings: KafkaSettings, topic: str) -> dict[int, int]:
    """The next offset to be written of each partition. Blocks."""
    admin = _admin(settings)
    return _offsets(admin, topic, OffsetSpec.latest(), _partitions(admin, topic))


def group_lag(settings: KafkaSettings, group: str, topic: str) -> dict[int, int]:
    """Records of each partition that ``group`` has not committed yet; a partition never committed counts whole."""
    return GroupProgress(settings, group, topic).ask().lag()


def _admin(settings: KafkaSettings) -> AdminClient:
    return AdminClient(client_config(settings, "dmpd-admin"))


def _answer(future: "Future[_T]", what: str) -> _T:
    """Wait for it. Raises ``KafkaUnreachableError``, with ``what`` before it."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, confluent_kafka.KafkaException):
        raise KafkaUnreachableError(f"{what}: {error.args[0].str()}") from error
    raise error


def _partitions(admin: AdminClient, topic: str, timeout_s: float = _TIMEOUT_S) -> list[int]:
    try:
        found = admin.list_topics(topic, timeout=timeout_s).topics[topic]
    except confluent_kafka.KafkaException as error:
        raise KafkaUnreachableError(error.args[0].str()) from error
    if found.error is not None:
        hint = " (dmpd migrate creates it)" if found.error.code() in _MISSING else ""
        raise KafkaUnreachableError(f"topic {topic}: {found.error.str()}{hint}")
    return sorted(found.partitions)


def _offsets(
    admin: AdminClient, topic: str, spec: OffsetSpec, partitions: Sequence[int], timeout_s: float = _TIMEOUT_S
) -> dict[int, int]:
    asked = {TopicPartition(topic, number): spec for number in partitions}
    answers = admin.list_offsets(asked, request_timeout=timeout_s)
    return {one.partition: _answer(answer, f"topic {topic}").offset for one, answer in answers.items()}
