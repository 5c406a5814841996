"""Which dead letters a command means: its options, and reading them within bounds."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Final

from dmpd.cli.arguments import count, partition, since
from dmpd.cloud_registry.source import source_of
from dmpd.runtime.kafka_range import Range, RangeReader
from dmpd.runtime.kafka_reader import ReadRecord
from dmpd.stream.letters import Letter, letter_of

SCAN: Final = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="R", help="only with this reason")
    parser.add_argument("--source", metavar="S", help="only of this source (RAE)")
    parser.add_argument("--partition", type=partition, metavar="N", help="only records of this partition")
    parser.add_argument(
        "--since", type=since, metavar="WHEN", help="only since then: 30m, 2h, 3d, or 2026-11-25T04:00:00Z"
    )
    parser.add_argument(
        "--scan", type=count, default=SCAN, metavar="N", help=f"look at the newest N letters of each partition ({SCAN})"
    )


def ranges(reader: RangeReader, args: argparse.Namespace) -> tuple[dict[int, Range], int]:
    """What to read of each partition of the dead-letter topic, and how many letters that leaves out by ``--scan``.

    The ends are those of now: what comes while a command runs is not of it. Blocks; raises what ``RangeReader`` does.
    """
    found: Mapping[int, Range] = reader.bounds()
    if args.since is not None:
        found = reader.since(int(args.since.timestamp() * 1000), found)
    chosen = {number: Range(max(one.first, one.end - args.scan), one.end) for number, one in found.items()}
    return chosen, sum(chosen[number].first - one.first for number, one in found.items())


def letters(reader: RangeReader, chosen: Mapping[int, Range], args: argparse.Namespace) -> Iterator[Letter]:
    """Those of ``chosen`` that the options mean; in order within a partition."""
    for record in reader.read(chosen):
        letter = as_letter(record)
        if (
            args.reason in (None, letter.reason)
            and args.source in (None, source_name(letter))
            and args.partition in (None, letter.origin_partition)
        ):
            yield letter


def as_letter(record: ReadRecord) -> Letter:
    return letter_of(record.partition, record.offset, record.timestamp_ms, record.key, record.value, record.headers)


def source_name(letter: Letter) -> str:
    return source_of(letter.key).decode(errors="replace")
