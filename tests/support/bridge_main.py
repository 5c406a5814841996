"""The bridge as a process of its own: ``python -m tests.support.bridge_main SETTINGS`` with the sections as JSON."""

import sys

import msgspec

from dmpd.bridge import daemon
from dmpd.bridge.settings import BridgeSettings
from dmpd.runtime import log
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings, LogSettings, MqttSettings, TopicSettings


class Sections(msgspec.Struct, frozen=True, kw_only=True):
    bridge: BridgeSettings
    kafka: KafkaSettings
    mqtt: MqttSettings
    topics: TopicSettings


def main() -> int:
    sections = msgspec.json.decode(sys.argv[1], type=Sections)
    log.setup(LogSettings(), daemon.PROGRAM)
    return daemon.run(
        sections.bridge,
        kafka=sections.kafka,
        mqtt=sections.mqtt,
        topics=sections.topics,
        lifecycle=Lifecycle(daemon.PROGRAM),
    )


if __name__ == "__main__":
    sys.exit(main())
