"""``dmpctl dead-letters``: what could not be used, and why; and the way back once the cause is gone.

Those of the cloud, by its configuration; with ``--topic`` those of any topic that ``dmpd stream-run`` processes.

``list`` shows the newest. ``show PARTITION OFFSET`` prints one whole, by its place in the dead-letter topic.
``replay`` produces letters again as they were, to the topic and partition they came from, marked with the header
``dmpd-replayed`` (how often), so that one that fails again shows it. To replay twice is harmless: what is old is
dropped. A letter whose headers name no place in a topic is said, and costs itself alone.

Exit codes: 0 done, 1 no such letter, or one whose headers name no place in a topic (replay: not all went back), 64
wrong usage, 69 Kafka does not answer, 78 the configuration is wrong.
"""

import argparse
import contextlib
import heapq
import json
import sys
from datetime import UTC, datetime
from typing import Any, Final

from dmpd.cli import dead_letter_choice as choice
from dmpd.cli import dead_letter_place, replay, tables
from dmpd.cli.arguments import count, rate
from dmpd.cli.dead_letter_place import Place
from dmpd.runtime import exit_codes
from dmpd.runtime.kafka import Producer
from dmpd.runtime.kafka_range import Range, RangeReader
from dmpd.stream.letters import Letter

HELP: Final = "list, show and replay what could not be used"
_COLUMNS: Final = ("partition", "offset", "at", "reason", "source", "from", "bytes", "replayed", "detail")
_DETAIL_MAX: Final = 80
_SAY_EVERY: Final = 500


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the newest ones", description="The newest dead letters.")
    showing = actions.add_parser("show", help="one whole", description="One dead letter, whole.")
    replaying = actions.add_parser("replay", help="send them back", description="Send dead letters back.")
    for one in (listing, showing, replaying):
        dead_letter_place.add_arguments(one)
        one.add_argument("--json", action="store_true", help="for programs")
    for one in (listing, replaying):
        choice.add_arguments(one)
    listing.add_argument("--limit", type=count, default=20, metavar="N", help="at most N, the newest (default 20)")
    showing.add_argument("letter_partition", type=int, metavar="PARTITION", help="of the dead-letter topic")
    showing.add_argument("letter_offset", type=int, metavar="OFFSET", help="in it")
    replaying.add_argument("--letter", type=_place, metavar="PARTITION/OFFSET", help="only this one")
    replaying.add_argument("--all", action="store_true", help="without any filter: all that --scan reaches")
    replaying.add_argument(
        "--rate", type=rate, default=100.0, metavar="N", help="at most N per second (100; 0: no limit)"
    )
    replaying.add_argument("--dry-run", action="store_true", help="only say how many would go back")


def run(args: argparse.Namespace) -> int:
    wrong = dead_letter_place.wrong_use(args) or (_wrong_choice(args) if args.action == "replay" else None)
    if wrong is not None:
        print(f"dmpctl dead-letters {args.action}: {wrong}", file=sys.stderr)
        return exit_codes.USAGE
    place = dead_letter_place.place_of(args)
    with contextlib.closing(RangeReader(place.kafka, place.dead_letter_topic)) as reader:
        if args.action == "list":
            return _list(reader, args)
        return _show(reader, args) if args.action == "show" else _replay(reader, args, place)


def _list(reader: RangeReader, args: argparse.Namespace) -> int:
    chosen, left_out = choice.ranges(reader, args)
    newest = heapq.nlargest(
        args.limit, choice.letters(reader, chosen, args), key=lambda one: (one.timestamp_ms, one.offset)
    )
    code = exit_codes.OK if newest and not any(one.impossible for one in newest) else exit_codes.DIFFERENT
    for letter in newest:
        _say_impossible(letter)
    if args.json:
        tables.print_json([_as_json(letter) for letter in newest])
        return code
    if newest:
        table = tables.table(_COLUMNS, right=("partition", "offset", "bytes", "replayed"))
        for letter in newest:
            table.add_row(*_row(letter))
        tables.console().print(table)
    else:
        print("no dead letters" + (" of this kind" if left_out or _says_which(args) else ""))
    if left_out:
        print(f"{left_out} older ones were not looked at (--scan)")
    return code


def _say_impossible(letter: Letter) -> None:
    if letter.impossible:
        print(f"{letter.partition}/{letter.offset}: {tables.printable(letter.impossible)}", file=sys.stderr)


def _row(letter: Letter) -> tuple[str, ...]:
    came_from = (
        "-"
        if letter.topic is None
        else f"{letter.topic}/{_number(letter.origin_partition)}/{_number(letter.origin_offset)}"
    )
    detail = letter.detail if len(letter.detail) <= _DETAIL_MAX else letter.detail[: _DETAIL_MAX - 1] + "…"
    size = "truncated" if letter.truncated else str(len(letter.value or b""))
    cells = (_at(letter), letter.reason, choice.source_name(letter), came_from, size, letter.replayed or "", detail)
    return (str(letter.partition), str(letter.offset), *(tables.printable(tables.text(cell)) for cell in cells))


def _at(letter: Letter) -> str:
    if letter.at:
        return letter.at
    try:
        return tables.instant(datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC))
    except (ValueError, OverflowError, OSError):  # a producer may say any time, also one that no calendar has
        return f"{letter.timestamp_ms} ms"


def _number(number: int | None) -> str:
    return "?" if number is None else str(number)


def _show(reader: RangeReader, args: argparse.Namespace) -> int:
    letter = _find(reader, args.letter_partition, args.letter_offset)
    if letter is None:
        return _no_letter(args.letter_partition, args.letter_offset)
    code = exit_codes.DIFFERENT if letter.impossible else exit_codes.OK
    _say_impossible(letter)
    if args.json:
        tables.print_json(_as_json(letter))
        return code
    facts = {
        "letter": f"{letter.partition}/{letter.offset}",
        "given up": f"{_at(letter)} by {letter.by}",
        "reason": f"{letter.reason}: {letter.detail}" if letter.detail else letter.reason,
        "from": f"{letter.topic} partition {_number(letter.origin_partition)} offset {_number(letter.origin_offset)}",
        "replayed": f"{letter.replayed} times before" if letter.replayed else "never",
        "key": _readable(letter.key),
    }
    facts |= {f"header {name}": _readable(value) for name, value in letter.headers}
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{tables.printable(name):{width}}  {tables.printable(value)}")
    value = "(truncated: it was too large to be kept)" if letter.truncated else _pretty(letter.value)
    print(f"{'value':{width}}  {len(letter.value or b'')} bytes\n{tables.printable(value, keep=chr(10))}")
    return code


def _no_letter(partition: int, offset: int) -> int:
    print(f"no dead letter at {partition}/{offset}", file=sys.stderr)
    return exit_codes.DIFFERENT


def _replay(reader: RangeReader, args: argparse.Namespace, place: Place) -> int:
    if args.letter is not None:
        found = _find(reader, *args.letter)
        if found is None:
            return _no_letter(*args.letter)
        letters, left_out = iter([found]), 0
    else:
        chosen, left_out = choice.ranges(reader, args)
        letters = choice.letters(reader, chosen, args)
    if args.dry_run:
        outcome = replay.check(letters, topic=place.topic)
    else:
        producer = Producer(place.kafka, "dmpctl-replay", message_max_bytes=place.message_bytes_max)
        try:
            outcome = replay.send(letters, producer, topic=place.topic, per_second=args.rate, progress=_progress)
        finally:
            producer.close()
    if args.json:
        tables.print_json(outcome)
    else:
        _say_outcome(outcome, left_out, dry_run=args.dry_run)
    if outcome.unanswered:
        return exit_codes.UNAVAILABLE
    return exit_codes.OK if outcome.replayed and not outcome.refused + outcome.failed else exit_codes.DIFFERENT


def _say_outcome(outcome: replay.Outcome, left_out: int, *, dry_run: bool) -> None:
    for place, sentence in outcome.sentences.items():
        print(f"{place}: {tables.printable(sentence)}")
    print(
        f"{outcome.replayed} {'would go back' if dry_run else 'went back'}, {outcome.refused} cannot,"
        f" {outcome.failed} were refused by Kafka, {outcome.unanswered} are not answered for"
    )
    if left_out:
        print(f"{left_out} older ones were not looked at (--scan)")


def _progress(sent: int) -> None:
    if sent % _SAY_EVERY == 0:
        print(f"{sent} sent", file=sys.stderr)


def _find(reader: RangeReader, partition: int, offset: int) -> Letter | None:
    bounds = reader.bounds().get(partition)
    if bounds is None or not bounds.first <= offset < bounds.end:
        return None
    records = reader.read({partition: Range(offset, offset + 1)})
    return next((choice.as_letter(one) for one in records if one.offset == offset), None)


def _as_json(letter: Letter) -> dict[str, Any]:
    """Bytes as text; what is no UTF-8 shows as the replacement character."""
    found = letter._asdict()
    return found | {
        "source": choice.source_name(letter),
        "key": _text(letter.key),
        "value": _text(letter.value),
        "headers": [[name, _text(value)] for name, value in letter.headers],
    }


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="replace")


def _readable(content: bytes | None) -> str:
    return "null" if content is None else content.decode(errors="backslashreplace")


def _pretty(value: bytes | None) -> str:
    """JSON with its lines, anything else as it is."""
    try:
        return json.dumps(json.loads(value or b""), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return _readable(value)


def _place(text: str) -> tuple[int, int]:
    partition, separator, offset = text.partition("/")
    if not (separator and partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        raise argparse.ArgumentTypeError(f"expected PARTITION/OFFSET, got {text!r}")
    return int(partition), int(offset)


def _wrong_choice(args: argparse.Namespace) -> str | None:
    if not _says_which(args):
        return "say which: a filter, --letter, or --all"
    filters = (args.reason, args.source, args.partition, args.since)
    if args.letter is not None and (args.all or any(one is not None for one in filters)):
        return "--letter is one letter: it goes with no filter and not with --all"
    return None


def _says_which(args: argparse.Namespace) -> bool:
    filters = (args.reason, args.source, args.partition, args.since, getattr(args, "letter", None))
    return getattr(args, "all", False) or any(one is not None for one in filters)
