"""The cloud's configuration file as a whole: the rooms' sections put together; where it is, and what if it is wrong."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from dmpd.access.settings import AccessSettings
from dmpd.bridge.settings import BridgeSettings
from dmpd.canary.settings import CanarySettings
from dmpd.cloud_registry.settings import OUTBOX_HOURS_MAX, CloudRegistrySettings
from dmpd.runtime import exit_codes
from dmpd.runtime.config import ConfigError, load
from dmpd.runtime.daemon_process import UNDER_SUPERVISORD
from dmpd.runtime.settings import CaSettings, DatabaseSettings, KafkaSettings, LogSettings, MqttSettings, TopicSettings

DEFAULT_CONFIG: Final = Path("/etc/dmpd/dmpd.yaml")
RAE_CONFIG: Final = Path("/etc/dmpd/local-registry.yaml")
SETTLE_S: Final = 1.1
"""supervisord counts an end within startsecs (1 s) as a failed start and tries again; later it shows EXITED."""


class CloudConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``dmpd.yaml``: one file for all cloud daemons and for dmpctl."""

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    mqtt: MqttSettings = MqttSettings()
    database: DatabaseSettings = DatabaseSettings()
    bridge: BridgeSettings = BridgeSettings()
    cloud_registry: CloudRegistrySettings = CloudRegistrySettings()
    access: AccessSettings = AccessSettings()
    ca: CaSettings = CaSettings()
    canary: CanarySettings = CanarySettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        stream, topics = self.cloud_registry.stream, self.topics
        longest_s = self.database.answer_timeout_s
        if stream.stuck_timeout_s < longest_s:
            raise ValueError(
                "cloud_registry.stream.stuck_timeout_s: expected at least 1.5 x database.statement_timeout_s + 1"
                f" ({longest_s:g}), got {stream.stuck_timeout_s:g}: a worker that waits for one answer would be killed"
            )
        if stream.sink_silence_timeout_s < 3 * self.database.statement_timeout_s:
            raise ValueError(
                "cloud_registry.stream.sink_silence_timeout_s: expected at least 3 x database.statement_timeout_s"
                f" ({3 * self.database.statement_timeout_s:g}), got {stream.sink_silence_timeout_s:g}"
            )
        tombstone_hours = self.cloud_registry.retention.tombstone_hours
        if tombstone_hours < topics.retention_hours + OUTBOX_HOURS_MAX:
            raise ValueError(
                "cloud_registry.retention.tombstone_hours: expected at least topics.retention_hours"
                f" + {OUTBOX_HOURS_MAX} ({topics.retention_hours + OUTBOX_HOURS_MAX}), got {tombstone_hours}:"
                " an old message would bring an ended device session back"
            )
        if (stream.topic, stream.dead_letter_topic) != (topics.info, topics.info_dead):
            raise ValueError(
                "cloud_registry.stream.topic and dead_letter_topic: expected topics.info and topics.info_dead"
                f" ({topics.info}, {topics.info_dead}), got {stream.topic}, {stream.dead_letter_topic}"
            )


def default_config(*, lab: bool = False) -> Path:
    """``DMPD_CONFIG``, /etc/dmpd/dmpd.yaml, or (``lab``) that of the lab that runs."""
    default = Path(os.environ.get("DMPD_CONFIG", DEFAULT_CONFIG))
    if lab and "DMPD_CONFIG" not in os.environ and not default.exists():
        try:
            from dmpd.cli import this_lab  # noqa: PLC0415 - the lab's libraries are not installed everywhere
        except ModuleNotFoundError:  # on a RAE, which has no lab
            return default
        default = this_lab.config() or default
    return default


def add_config_argument(parser: argparse.ArgumentParser, *, lab: bool = False) -> None:
    """``--config FILE``; its default is ``default_config``."""
    default = default_config(lab=lab)
    parser.add_argument("--config", type=Path, default=default, metavar="FILE", help=f"default {default}")


def add_any_config_argument(parser: argparse.ArgumentParser) -> None:
    """``--config FILE`` of the cloud or of a RAE; its default is what this machine has."""
    default = default_config(lab=True)
    if "DMPD_CONFIG" not in os.environ and not default.exists() and RAE_CONFIG.exists():
        default = RAE_CONFIG
    about = "default: DMPD_CONFIG, or dmpd.yaml or else local-registry.yaml in /etc/dmpd"
    parser.add_argument("--config", type=Path, default=default, metavar="FILE", help=about)


def load_cloud_config(args: argparse.Namespace) -> CloudConfig:
    """Load ``--config``.

    Raises:
        ConfigError: It cannot be used; ``commands.run`` says so and exits 78.
    """
    if not args.config.exists():
        hint = "name another with --config or DMPD_CONFIG, or start a lab (dmpd lab up)"
        raise ConfigError([f"{args.config}: No such file: {hint}"])
    return load(args.config, CloudConfig)


def settle(code: int) -> int:
    """``code``; if no restart repairs it, under supervisord after startsecs: then it shows EXITED and does not loop."""
    if code in (exit_codes.USAGE, exit_codes.CONFIG) and UNDER_SUPERVISORD in os.environ:
        sys.stderr.flush()
        time.sleep(SETTLE_S)
    return code
