"""What a request may ask, of whom, and how it travels as a record of ``dmp.cmd``."""

from datetime import UTC, datetime

import pytest
from msgspec import Raw

from dmpd.model.codec import decode_record
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Request
from dmpd.model.requests import (
    ARGS,
    EXPIRY_HEADER,
    RAE_VERBS,
    SESSION_VERBS,
    AttributesSetArgs,
    args_of,
    check_verb,
    lifetime_of,
    lifetime_s,
    request_record,
)
from dmpd.model.topics import Topic

SESSION = "0f1e2345-6789-4abc-8def-0123456789ab"


def asked(verb, args):
    session = SESSION if verb in SESSION_VERBS else "rae"
    said = {name: Raw(value) for name, value in args.items()}
    return Request(v=1, rae="r1", session=session, at=datetime(2026, 1, 1, tzinfo=UTC), id="i", verb=verb, args=said)


def test_every_verb_has_arguments_and_one_place():
    assert set(ARGS) == SESSION_VERBS | RAE_VERBS
    assert not SESSION_VERBS & RAE_VERBS


@pytest.mark.parametrize("verb", sorted(SESSION_VERBS))
def test_a_session_verb_is_refused_on_the_raes_topic(verb):
    check_verb(SESSION, verb)
    with pytest.raises(InvalidMessageError, match="a device session"):
        check_verb("rae", verb)


@pytest.mark.parametrize("verb", sorted(RAE_VERBS))
def test_a_rae_verb_is_refused_on_a_sessions_topic(verb):
    check_verb("rae", verb)
    with pytest.raises(InvalidMessageError, match="the RAE"):
        check_verb(SESSION, verb)


def test_an_unknown_verb_is_told_which_there_are():
    with pytest.raises(InvalidMessageError, match=r"unknown verb 'reboot'; here are: .*ping"):
        check_verb("rae", "reboot")


@pytest.mark.parametrize(
    ("verb", "args", "said"),
    [
        ("app.launch", {}, "app"),
        ("app.launch", {"app": b"7"}, "Expected `str`, got `int` - at `\\$.app`"),
        ("app.state", {"app": b'"../x"'}, "app"),
        ("app.launch", {"app": b'"A"', "payload": b'"%s"' % (b"x" * 4097)}, "payload"),
        ("forget", {"session": b'"rae"'}, "session"),
        ("epoch.raise", {"refused": b"0", "above": b"2"}, "refused"),
        ("log_level", {"level": b'"loud"'}, "level"),
        ("attributes.set", {}, "expected set or unset"),
        ("attributes.set", {"set": b'{"":1}'}, "attribute name"),
        ("attributes.set", {"set": b'{"a":1}', "unset": b'["a"]'}, "both set and unset"),
        ("attributes.set", {"unset": b'"a"'}, "unset"),
    ],
)
def test_wrong_arguments_are_refused_by_name(verb, args, said):
    with pytest.raises(InvalidMessageError, match=said):
        args_of(asked(verb, args))


def test_arguments_are_typed_and_unknown_ones_ignored():
    found = args_of(asked("attributes.set", {"set": b'{"a":[1]}', "unset": b'["b"]', "more": b"1"}))
    assert isinstance(found, AttributesSetArgs)
    assert (bytes(found.values["a"]), found.unset) == (b"[1]", ("b",))


def test_a_record_names_its_requester_and_its_lifetime():
    request = Request(v=1, rae="r1", session=SESSION, at=datetime(2026, 1, 1, tzinfo=UTC), id="i", verb="probe")
    record = request_record(request, "op-eve", lifetime_s=90)
    assert decode_record(record.key, record.value) == (Topic("r1", SESSION, "cmd", "op-eve"), request)
    assert lifetime_of(record.headers) == 90


@pytest.mark.parametrize(("expiry_s", "expected_s"), [(None, 60), (0, 0), (5, 5), (3600, 3600), (999_999, 3600)])
def test_lifetimes_are_bounded(expiry_s, expected_s):
    assert lifetime_s(expiry_s) == expected_s
    headers = () if expiry_s is None else ((EXPIRY_HEADER, str(expiry_s).encode()),)
    assert lifetime_of(headers) == expected_s


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"1e3", b"soon", b"9" * 11])
def test_a_lifetime_that_is_no_number_is_refused(value):
    with pytest.raises(InvalidMessageError, match=EXPIRY_HEADER):
        lifetime_of([(EXPIRY_HEADER, value)])


def test_an_empty_header_value_means_none():
    assert lifetime_of([(EXPIRY_HEADER, None)]) == 60
