"""What the cloud asks of RAEs: the edge reads back what was built, and a wrong argument is named."""

import json
from pathlib import Path

import pytest

from dmpd.model.codec import InvalidMessageError, decode, encode
from dmpd.model.requests import REGISTRY, EpochRaiseArgs, ForgetArgs, read_args, request
from dmpd.model.topics import RAE_SESSION, cmd_topic, parse_topic
from tests.support.messages import AT, EPOCH, RAE, SESSION

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "valid.json"


@pytest.mark.parametrize(
    ("verb", "session", "args"),
    [
        ("checkpoint", SESSION, None),
        ("checkpoint.all", RAE_SESSION, None),
        ("epoch.raise", RAE_SESSION, EpochRaiseArgs(refused=5, above=EPOCH)),
        ("forget", RAE_SESSION, ForgetArgs(session=SESSION)),
    ],
)
def test_a_request_is_read_as_it_was_built(verb, session, args):
    built = request(verb, rae=RAE, session=session, request_id="r1", at=AT, args=args)
    received = decode(encode(built), parse_topic(cmd_topic(RAE, session, REGISTRY)))
    assert received == built
    assert (received.verb, received.id) == (verb, "r1")
    if args is not None:
        assert read_args(received, type(args)) == args


def test_every_verb_has_a_golden_vector():
    said = [vector["decoded"] for vector in json.loads(VECTORS.read_text())]
    verbs = {one["verb"] for one in said if one["kind"] == "request"}
    assert {"checkpoint", "checkpoint.all", "epoch.raise", "forget"} <= verbs


def test_a_wrong_argument_is_named():
    built = request("epoch.raise", rae=RAE, request_id="r1", at=AT, args=EpochRaiseArgs(refused=5, above=6))
    with pytest.raises(InvalidMessageError, match=r"args: .*session"):
        read_args(built, ForgetArgs)
    with pytest.raises(InvalidMessageError, match="above"):
        read_args(
            request("epoch.raise", rae=RAE, request_id="r", at=AT, args=EpochRaiseArgs(refused=1, above=0)),
            EpochRaiseArgs,
        )
