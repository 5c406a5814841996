"""Kafka's administration as dmpd needs it: make topics, describe them, ends of partitions, lag of a group."""

from collections.abc import Mapping, Sequence
from typing import Final

import confluent_kafka
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType
from msgspec import Struct

from dmpd.runtime.kafka import KafkaUnreachableError, client_config
from dmpd.runtime.settings import KafkaSettings

_TIMEOUT_S: Final = 15.0
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
        try:
            answer.result()
        except confluent_kafka.KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise KafkaUnreachableError(f"topic {name}: {error.args[0].str()}") from error
        else:
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
        configs = {resource.name: answer.result() for resource, answer in answers.items()}
    except confluent_kafka.KafkaException as error:
        raise KafkaUnreachableError(f"{settings.bootstrap_servers}: {error.args[0].str()}") from error
    return {
        name: TopicSpec(
            name=name,
            partitions=len(known[name].partitions),
            replication_factor=min(len(one.replicas) for one in known[name].partitions.values()),
            config={entry.name: entry.value for entry in configs[name].values() if entry.value is not None},
        )
        for name in found
    }


def list_end_offsets(settings: KafkaSettings, topic: str) -> dict[int, int]:
    """The next offset to be written of each partition. Blocks."""
    admin = _admin(settings)
    return _offsets(admin, topic, OffsetSpec.latest(), _partitions(admin, topic))


def group_lag(settings: KafkaSettings, group: str, topic: str) -> dict[int, int]:
    """Records of each partition that ``group`` has not committed yet; a partition never committed counts whole."""
    admin = _admin(settings)
    partitions = _partitions(admin, topic)
    ends = _offsets(admin, topic, OffsetSpec.latest(), partitions)
    begins = _offsets(admin, topic, OffsetSpec.earliest(), partitions)
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in partitions])
    try:
        answer = admin.list_consumer_group_offsets([asked], request_timeout=_TIMEOUT_S)[group].result()
    except confluent_kafka.KafkaException as error:
        raise KafkaUnreachableError(f"group {group}: {error.args[0].str()}") from error
    committed = {one.partition: one.offset for one in answer.topic_partitions if one.offset >= 0}
    return {number: ends[number] - committed.get(number, begins[number]) for number in partitions}


def _admin(settings: KafkaSettings) -> AdminClient:
    return AdminClient(client_config(settings, "dmpd-admin"))


def _partitions(admin: AdminClient, topic: str) -> list[int]:
    try:
        found = admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
    except confluent_kafka.KafkaException as error:
        raise KafkaUnreachableError(error.args[0].str()) from error
    if found.error is not None:
        hint = " (dmpd migrate creates it)" if found.error.code() in _MISSING else ""
        raise KafkaUnreachableError(f"topic {topic}: {found.error.str()}{hint}")
    return sorted(found.partitions)


def _offsets(admin: AdminClient, topic: str, spec: OffsetSpec, partitions: Sequence[int]) -> dict[int, int]:
    asked = {TopicPartition(topic, number): spec for number in partitions}
    try:
        answers = admin.list_offsets(asked, request_timeout=_TIMEOUT_S)
        return {one.partition: answer.result().offset for one, answer in answers.items()}
    except confluent_kafka.KafkaException as error:
        raise KafkaUnreachableError(f"topic {topic}: {error.args[0].str()}") from error
