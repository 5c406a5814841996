"""``dmpctl watch``: which records become a line."""

import argparse

import msgspec
import pytest

from dmpd.cli import ctl_watch
from dmpd.model.codec import encode
from dmpd.model.topics import info_topic
from dmpd.runtime.kafka_reader import ReadRecord
from tests.support.messages import RAE, change


def line(rae, *words):
    parser = argparse.ArgumentParser()
    ctl_watch.configure(parser)
    message = msgspec.structs.replace(change(1), rae=rae)
    key = info_topic(rae, message.session).encode()
    return ctl_watch._line(ReadRecord("dmp.info", 0, 0, -1, key, encode(message), ()), parser.parse_args(words))


@pytest.mark.parametrize(
    ("rae", "words", "shown"),
    [
        (RAE, (), True),
        (RAE, ("--rae", "R-2"), False),
        ("canary-0001", (), False),
        ("canary-0001", ("--json",), False),
        ("canary-0001", ("--canary",), True),
        ("canary-0001", ("--rae", "canary-0001"), True),
        ("canary-0001", ("--rae", "canary-0002"), False),
    ],
)
def test_canaries_are_shown_to_who_asks_for_them(rae, words, shown):
    found = line(rae, *words)
    assert (found is not None) is shown
    assert not shown or rae in found
