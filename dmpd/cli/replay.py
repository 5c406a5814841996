"""Sending dead letters back to where they were: paced, counted, and waited for."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from dmpd.runtime.kafka import ProducerQueueFullError, RecordProducer
from dmpd.stream.letters import Letter, NotReplayableError, replay_of

_FLUSH_TIMEOUT_S: Final = 30.0
_FULL_POLL_S: Final = 0.1


class Outcome(msgspec.Struct):
    """What became of the letters; ``sentences`` are those of the first refused or failed, by ``partition/offset``."""

    replayed: int = 0
    refused: int = 0
    failed: int = 0
    unanswered: int = 0
    """Kafka did not say whether it has them."""
    sentences: dict[str, str] = {}

    def note(self, letter: Letter, sentence: str) -> None:
        if len(self.sentences) < SENTENCES_MAX:
            self.sentences[f"{letter.partition}/{letter.offset}"] = sentence


SENTENCES_MAX: Final = 20


def check(letters: Iterable[Letter], *, topic: str) -> Outcome:
    """What ``send`` would do; nothing is sent."""
    outcome = Outcome()
    for letter in letters:
        try:
            replay_of(letter, topic=topic)
        except NotReplayableError as error:
            outcome.refused += 1
            outcome.note(letter, str(error))
        else:
            outcome.replayed += 1
    return outcome


def send(
    letters: Iterable[Letter],
    producer: RecordProducer,
    *,
    topic: str,
    per_second: float,
    progress: Callable[[int], None] = lambda _: None,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Send each letter of ``topic`` that can go back, in order, at most ``per_second`` (0 = as fast as Kafka takes).

    Blocks until Kafka has answered for all, or 30 s after the last one was sent.
    """
    outcome = Outcome()
    started_s, sent = now_s(), 0
    for letter in letters:
        try:
            replay = replay_of(letter, topic=topic)
        except NotReplayableError as error:
            outcome.refused += 1
            outcome.note(letter, str(error))
            continue
        if per_second:
            wait_s = started_s + sent / per_second - now_s()
            if wait_s > 0:
                sleep(wait_s)

        def on_delivery(refusal: str | None, letter: Letter = letter) -> None:
            if refusal is None:
                outcome.replayed += 1
            else:
                outcome.failed += 1
                outcome.note(letter, refusal)

        while True:
            try:
                producer.produce(
                    replay.topic,
                    key=replay.key,
                    value=replay.value,
                    headers=replay.headers,
                    partition=replay.partition,
                    on_delivery=on_delivery,
                )
                break
            except ProducerQueueFullError:
                producer.poll(_FULL_POLL_S)
        sent += 1
        producer.poll(0)
        progress(sent)
    outcome.unanswered = producer.flush(_FLUSH_TIMEOUT_S)
    return outcome
