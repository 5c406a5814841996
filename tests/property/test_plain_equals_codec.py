"""The quick way in takes nothing that the codec refuses, and what it takes folds as the codec's messages do."""

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from dmpd.cloud_registry.scan import plain_of
from dmpd.model.codec import decode, encode
from dmpd.model.fold import fold_all, fold_of
from dmpd.model.plain import PlainChange, decode_plain, fields_of
from dmpd.model.record import DeviceRecord, RecordPatch
from dmpd.model.running import Running
from dmpd.model.topics import Topic
from tests.property.test_sink_equals_model import true_change, true_checkpoint
from tests.support.messages import EPOCH, RAE, SESSION, change

TOPIC = Topic(RAE, SESSION, "info")
_GOOD = json.loads(encode(change(3, seq=3, patch=RecordPatch(state="online", attributes={"a": Raw(b"1")}))))
_COMPLETE = json.loads(encode(true_checkpoint(1, 4, SESSION)))

_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**66), 2**66), st.floats(), st.text(max_size=4), st.just("x" * 200)
)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
_places = st.sampled_from(
    ["v", "kind", "rae", "session", "at", "epoch", "rev", "seq", "set", "record", "cause", "unset", "more",
     "set.state", "set.esn", "set.attributes", "set.attributes.a", "set.attributes.", "set.first_seen", "set.more",
     "record.interfaces", "record.first_seen", "record.attributes.z", "record.esn"]
)  # fmt: skip


def spoilt(message, place, value):
    copy = json.loads(json.dumps(message))
    *path, last = place.split(".")
    inner = copy
    for name in path:
        if not isinstance(inner.get(name), dict):
            return copy
        inner = inner[name]
    inner[last] = value
    return copy


@settings(max_examples=600, deadline=None)
@given(base=st.sampled_from([_GOOD, _COMPLETE]), place=_places, value=_json, ascii_only=st.booleans())
@example(base=_COMPLETE, place="record.first_seen", value="0001-01-01T00:00:00Z", ascii_only=True)
@example(base=_GOOD, place="at", value="9999-01-01T00:00:00Z", ascii_only=True)
@example(
    base=_COMPLETE, place="record.interfaces", value=[{"mac": "02:00:00:00:00:01", "ip4": "10.0.0"}], ascii_only=True
)
@example(base=_COMPLETE, place="record.interfaces", value=[{"mac": "02:00:00:00:00:01", "x": 1e400}], ascii_only=True)
@example(base=_GOOD, place="set.attributes.a", value="\0", ascii_only=False)
@example(base=_GOOD, place="at", value="2026-11-25T04:00:00+16:00", ascii_only=True)
@example(base=_GOOD, place="at", value="2026-11-25T04:00:00+15:59", ascii_only=True)
@example(base=_COMPLETE, place="at", value="2026-11-25T04:00:00-23:59", ascii_only=True)
@example(base=_COMPLETE, place="record.onboarded_at", value="2026-11-25T04:00:00-16:00", ascii_only=True)
@example(base=_COMPLETE, place="record.esn", value="\U0001f600" * 513, ascii_only=False)
def test_what_is_taken_is_what_the_codec_says(base, place, value, ascii_only):
    payload = json.dumps(spoilt(base, place, value), ensure_ascii=ascii_only).encode(errors="surrogatepass")
    plain = decode_plain(payload)
    if plain is None or (plain.rae, plain.session) != (RAE, SESSION):
        return
    message = decode(payload, TOPIC)
    assert (plain.at, plain.epoch, plain.rev, plain.seq, plain.cause) == (
        message.at, message.epoch, message.rev, message.seq, message.cause,
    )  # fmt: skip
    if isinstance(plain, PlainChange):
        mine, theirs = plain.patch, message.patch
        assert not message.unset
        assert msgspec.structs.replace(theirs, attributes=msgspec.UNSET) == RecordPatch(state=mine.state)
    else:
        mine, theirs = plain.record, message.record
        assert DeviceRecord(**fields_of(mine)) == msgspec.structs.replace(theirs, attributes={})
    if mine.attributes is msgspec.UNSET:
        assert theirs.attributes is msgspec.UNSET
    else:
        assert {name: json.dumps(value) for name, value in mine.attributes.items()} == {
            name: json.dumps(json.loads(bytes(raw))) for name, raw in theirs.attributes.items()
        }


@given(payload=st.binary(max_size=40))
def test_bytes_are_never_taken(payload):
    assert decode_plain(payload) is None


MESSAGES = st.lists(
    st.one_of(
        st.builds(true_change, st.sampled_from([1, 1, 1, 2]), st.integers(2, 9), st.just(SESSION)),
        st.builds(true_checkpoint, st.sampled_from([1, 1, 1, 2]), st.integers(2, 9), st.just(SESSION)),
    ),
    min_size=1,
    max_size=8,
)


@st.composite
def regular(draw):
    """Revisions that go on, with repetitions and checkpoints between."""
    rev = draw(st.integers(2, 4))
    messages = []
    for step in draw(
        st.lists(st.sampled_from(["next", "next", "again", "checkpoint", "checkpoint of next"]), max_size=6)
    ):
        if step in {"next", "checkpoint of next"}:
            rev += 1
        if step in {"next", "again"}:
            patch = RecordPatch(state=("online", "asleep")[rev % 3 % 2], attributes={"abc"[rev % 3]: Raw(b"%d" % rev)})
            messages.append(change(max(2, rev - (step == "again")), seq=rev, patch=patch))
        else:
            messages.append(msgspec.structs.replace(true_checkpoint(1, rev, SESSION), epoch=EPOCH))
    return messages or [change(rev)]


RUNS = regular()


@pytest.mark.parametrize("at", ["2026-11-25T04:00:00+16:00", "2026-11-25T04:00:00-23:59", "9999-01-01T00:00:00Z"])
@pytest.mark.parametrize("base", [_GOOD, _COMPLETE], ids=["change", "checkpoint"])
def test_a_run_takes_no_time_that_the_codec_refuses(base, at):
    run, asked = Running(RAE, SESSION), []
    run.take([json.dumps(spoilt(base, "at", at)).encode()], asked.append)
    assert asked == [0]


@given(messages=MESSAGES | RUNS)
def test_a_regular_run_is_the_fold(messages):
    payloads = [encode(message) for message in messages]
    run = Running(RAE, SESSION)

    def judge(number):
        plain = plain_of(decode(payloads[number], TOPIC))
        run.irregular = plain is None
        return plain

    run.take(payloads, judge)
    if not run.irregular:
        assert same(run.fold()) == same(fold_all(map(fold_of, messages)))


def same(fold):
    attributes = {name: json.loads(bytes(raw)) for name, raw in fold.attributes.items()}
    return msgspec.structs.replace(fold, attributes=attributes, fields=dict(fold.fields))
