"""``dmpctl watch``: every change as Kafka gets it, one line each, until Ctrl-C.

Exit codes: 0 ended by Ctrl-C or after ``--count`` lines, 64 wrong usage, 69 Kafka does not answer, 78 the configuration
is wrong.
"""

import argparse
import sys
from typing import Final

import msgspec

from dmpd.cli import arguments
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.cloud_registry.device_filter import CANARY_PREFIX
from dmpd.lab.describe import describe
from dmpd.model.codec import InvalidMessageError, decode_record
from dmpd.model.messages import Change, Checkpoint, Closed, Message
from dmpd.runtime import exit_codes
from dmpd.runtime.kafka_reader import ReadRecord, TopicReader

HELP: Final = "show changes live, as they come into Kafka"
_READ_TIMEOUT_S: Final = 0.5
_BATCH_RECORDS_MAX: Final = 500


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("--rae", type=arguments.rae, help="only this RAE")
    parser.add_argument("--session", default=None, help="only this device session (its id, or how it begins)")
    parser.add_argument("--canary", action="store_true", help="also the canary's own")
    parser.add_argument("--beginning", action="store_true", help="begin with what Kafka holds, not with what comes")
    parser.add_argument("--json", action="store_true", help="the messages themselves, one per line")
    parser.add_argument("--count", type=arguments.count, metavar="N", help="end after N lines")


def run(args: argparse.Namespace) -> int:
    settings = load_cloud_config(args)
    reader = TopicReader(settings.kafka, settings.topics.info, start="beginning" if args.beginning else "end")
    shown = 0
    try:
        while args.count is None or shown < args.count:
            for record in reader.read(_READ_TIMEOUT_S, _BATCH_RECORDS_MAX):
                line = _line(record, args)
                if line is not None and (args.count is None or shown < args.count):
                    print(line, flush=True)
                    shown += 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        reader.close()
    return exit_codes.OK


def _line(record: ReadRecord, args: argparse.Namespace) -> str | None:
    """What to print for one record; ``None`` for what was not asked for."""
    try:
        _, message = decode_record(record.key, record.value)
    except InvalidMessageError as error:
        return None if args.rae or args.session else f"invalid, partition {record.partition} {record.offset}: {error}"
    if args.rae not in (None, message.rae) or not message.session.startswith(args.session or ""):
        return None
    if message.rae.startswith(CANARY_PREFIX) and not (args.canary or args.rae):
        return None
    if args.json:
        return msgspec.json.encode(message).decode()
    return f"{message.at.isoformat(timespec='milliseconds')} {message.rae} {message.session} {_say(message)}"


def _say(message: Message) -> str:
    if isinstance(message, (Change, Checkpoint, Closed)):
        return f"rev {message.rev}: {', '.join(describe(message))}"
    kind = type(message).__name__.lower()
    detail = getattr(message, "state", None) or getattr(message, "code", None)
    return f"{kind} {detail}" if detail else kind
