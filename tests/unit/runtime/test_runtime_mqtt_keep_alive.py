"""A client of thousands has no timer of its own: whoever leads them has the silent ones ping."""

from types import SimpleNamespace

import pytest

from dmpd.runtime import mqtt_packets as packets
from dmpd.runtime.mqtt_mass import MassClient


@pytest.fixture
def sent():
    return []


@pytest.fixture
def client(sent):
    made = MassClient("canary-0001", on_message=print, on_puback=print, on_closed=print)
    made._begin(SimpleNamespace(send=sent.append, resume_reading=bool, close=bool, abort=bool))
    return made


def test_only_who_was_silent_for_so_long_pings_and_then_counts_anew(client, sent):
    client.sent_at_s = 100.0
    client.keep_alive(119.9, 20.0)
    assert sent == []
    client.keep_alive(120.0, 20.0)
    assert sent == [packets.PINGREQ]
    assert client.sent_at_s != 100.0
    client.keep_alive(client.sent_at_s + 1, 20.0)
    assert sent == [packets.PINGREQ]


def test_whoever_is_gone_pings_no_more(client, sent):
    client.abort()
    client.keep_alive(1e9, 20.0)
    assert sent == []
