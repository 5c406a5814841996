"""``dmpd migrate``: creates or updates the database's tables and Kafka's topics. Safe to repeat, and with two at once.

Topics that exist are never changed: what differs from the configuration is shown as a warning, because more partitions
move keys and less retention loses records; an operator decides that.

Exit codes: 0 done, 69 Kafka or the database does not answer, 78 the database was migrated by a later dmpd.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping
from typing import Final

from dmpd.cli.config import CloudConfig, add_config_argument, load_cloud_config
from dmpd.cloud_registry import migrate
from dmpd.runtime import exit_codes, kafka_admin
from dmpd.runtime.database import DatabaseError, DatabaseUnreachableError, connect, describe
from dmpd.runtime.kafka_admin import TopicSpec
from dmpd.runtime.settings import TopicSettings

HELP: Final = "create or update the database's tables and Kafka's topics"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument("--only", choices=("database", "kafka"), help="leave the other alone")


def run(args: argparse.Namespace) -> int:
    config = load_cloud_config(args)
    try:
        if args.only != "kafka":
            _migrate_database(config)
    except (DatabaseUnreachableError, DatabaseError) as error:
        print(f"dmpd migrate: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
    except migrate.SchemaError as error:
        print(f"dmpd migrate: {error}", file=sys.stderr)
        return exit_codes.CONFIG
    if args.only != "database":
        _create_topics(config)
    return exit_codes.OK


def topic_specs(topics: TopicSettings) -> list[TopicSpec]:
    """The topics as the configuration wants them."""
    config = {
        "retention.ms": str(topics.retention_hours * 3_600_000),
        "max.message.bytes": str(topics.max_message_bytes),
        "min.insync.replicas": str(topics.min_insync_replicas),
    }
    # A request's lifetime counts from the record's timestamp, which therefore must be the broker's.
    request_config = config | {"message.timestamp.type": "LogAppendTime"}
    return [
        TopicSpec(
            name=name,
            partitions=topics.partitions,
            replication_factor=topics.replication_factor,
            config=request_config if name == topics.cmd else config,
        )
        for name in (topics.info, topics.rsp, topics.cmd, topics.info_dead)
    ]


def differences(wanted: TopicSpec, found: TopicSpec) -> list[str]:
    """What of an existing topic is not as configured, in sentences. Pure."""
    said = []
    for what in ("partitions", "replication_factor"):
        is_so, should_be = getattr(found, what), getattr(wanted, what)
        if is_so != should_be:
            said.append(f"{wanted.name}: {what} is {is_so}, configured {should_be}")
    said.extend(
        f"{wanted.name}: {name} is {found.config.get(name, 'unset')}, configured {value}"
        for name, value in wanted.config.items()
        if found.config.get(name) != value
    )
    return said


def _migrate_database(config: CloudConfig) -> None:
    with contextlib.closing(connect(config.database, application="dmpd-migrate")) as connection:
        connection.autocommit = True
        applied = migrate.migrate(connection)
    where = describe(config.database)
    print(f"{where}: {', '.join(applied) if applied else 'up to date'}")


def _create_topics(config: CloudConfig) -> None:
    wanted = topic_specs(config.topics)
    created = kafka_admin.create_topics(config.kafka, wanted)
    found: Mapping[str, TopicSpec] = kafka_admin.describe(config.kafka, [topic.name for topic in wanted])
    for topic in wanted:
        if topic.name in created:
            print(f"topic {topic.name}: created, {topic.partitions} partitions")
        elif topic.name in found:
            print(f"topic {topic.name}: there, {found[topic.name].partitions} partitions")
            for sentence in differences(topic, found[topic.name]):
                print(f"warning: {sentence}", file=sys.stderr)
