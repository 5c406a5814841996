"""Principals, topics and partitions."""

import pytest

from dmpd.model.partitioner import murmur2
from dmpd.model.principals import PrincipalKind, is_rae, is_requester, principal_kind
from dmpd.model.topics import (
    InvalidTopicError,
    Topic,
    ack_topic,
    cmd_topic,
    info_topic,
    parse_topic,
    partition_of,
    rsp_topic,
)
from tests.support.messages import SESSION


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data, signed):
    assert murmur2(data) == signed & 0xFFFF_FFFF


def test_partition_is_of_the_rae():
    assert partition_of("foobar", 12) == (-790332482 & 0x7FFF_FFFF) % 12
    assert {partition_of(f"sim-{number:04}", 4) for number in range(100)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("RAE-7.lab_1", PrincipalKind.RAE),
        ("7" * 64, PrincipalKind.RAE),
        ("7" * 65, None),
        ("", None),
        ("admin", None),
        (".x", None),
        ("a/b", None),
        ("a+", None),
        ("a\n", None),
        ("ä", None),
        ("u-ada", PrincipalKind.USER),
        ("u-", None),
        ("svc-bridge", PrincipalKind.SERVICE),
        ("svc-other", None),
        ("op-eve", PrincipalKind.OPERATOR),
        ("op-", None),
        ("canary-0001", PrincipalKind.CANARY_RAE),
        ("canary-x", None),
    ],
)
def test_principal(name, kind):
    assert principal_kind(name) == kind
    assert is_rae(name) == (kind in {PrincipalKind.RAE, PrincipalKind.CANARY_RAE})
    assert is_requester(name) == (kind in {PrincipalKind.USER, PrincipalKind.SERVICE, PrincipalKind.OPERATOR})


@pytest.mark.parametrize(
    "topic",
    [
        Topic("RAE-7", SESSION, "info"),
        Topic("RAE-7", "rae", "info"),
        Topic("RAE-7", "rae", "ack"),
        Topic("RAE-7", SESSION, "cmd", "u-ada"),
        Topic("RAE-7", "rae", "rsp", "svc-registry"),
    ],
)
def test_topic_is_what_it_was_built_from(topic):
    assert parse_topic(str(topic)) == topic


def test_built_topics_parse():
    assert parse_topic(info_topic("RAE-7", SESSION)) == Topic("RAE-7", SESSION, "info")
    assert parse_topic(ack_topic("RAE-7")) == Topic("RAE-7", "rae", "ack")
    assert parse_topic(cmd_topic("RAE-7", SESSION, "op-eve")) == Topic("RAE-7", SESSION, "cmd", "op-eve")
    assert parse_topic(rsp_topic("RAE-7", "rae", "svc-registry")) == Topic("RAE-7", "rae", "rsp", "svc-registry")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dmp/v1",
        f"dmp/v2/RAE-7/{SESSION}/info",
        f"/dmp/v1/RAE-7/{SESSION}/info",
        f"dmp/v1/RAE-7/{SESSION}/info/",
        f"dmp/v1/RAE-7/{SESSION}/ack",
        f"dmp/v1/RAE-7/{SESSION}/cmd",
        f"dmp/v1/RAE-7/{SESSION}/info/u-ada",
        f"dmp/v1/RAE-7/{SESSION}/cmd/RAE-7",
        f"dmp/v1/RAE-7/{SESSION}/cmd/u-ada/x",
        f"dmp/v1/RAE-7/{SESSION}x/info",
        f"dmp/v1/RAE-7/{SESSION}\n/info",
        f"dmp/v1/u-ada/{SESSION}/info",
        f"dmp/v1/+/{SESSION}/info",
    ],
)
def test_no_topic(text):
    with pytest.raises(InvalidTopicError):
        parse_topic(text)
