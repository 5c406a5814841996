"""What RAEs are told because of what they sent: who, what, and how seldom."""

import itertools
import json
import time

import pytest

from dmpd.cloud_registry.asks import Asks, Teller
from dmpd.model.apply import EpochRaise, Verdict
from dmpd.model.codec import decode_record
from dmpd.model.messages import Status
from dmpd.model.record import DeviceRecord
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, closed, session_id
from tests.support.rows import OutputTwin, make_handler, migrated, record_of


@pytest.fixture
def handler(postgres):
    with migrated(postgres):
        handler = make_handler(postgres)
        yield handler
        handler.close()


def told(handler, *messages):
    """What the handler emits for ``messages``, decoded as a bridge would."""
    output = OutputTwin()
    handler.handle([record_of(message, offset) for offset, message in enumerate(messages)], output)
    assert output.refused == {}
    found = []
    for topic, key, value in output.emitted:
        assert topic == "dmp.cmd"
        assert key == f"dmp/v1/{RAE}/rae/cmd/svc-registry".encode()
        _, said = decode_record(key, value)
        found.append((said.verb, {name: json.loads(bytes(raw)) for name, raw in said.args.items()}))
    return found


@pytest.mark.services
def test_an_outranked_epoch_is_told_once_also_by_a_replay(handler):
    late = checkpoint(9, epoch=EPOCH - 5)
    assert told(handler, checkpoint(1)) == []
    assert told(handler, late) == [("epoch.raise", {"refused": EPOCH - 5, "above": EPOCH})]
    assert told(handler, late, change(10, epoch=EPOCH - 5)) == []
    assert told(handler, checkpoint(9, epoch=EPOCH - 4)) == [("epoch.raise", {"refused": EPOCH - 4, "above": EPOCH})]


@pytest.mark.services
def test_an_outranked_epoch_inside_a_batch_is_told(handler):
    assert told(handler, checkpoint(1), change(2, epoch=EPOCH - 5)) == [
        ("epoch.raise", {"refused": EPOCH - 5, "above": EPOCH})
    ]


@pytest.mark.services
def test_a_status_of_an_outranked_epoch_is_told(handler):
    def status(epoch):
        return Status(v=1, rae=RAE, session="rae", at=AT, epoch=epoch, state="ready", run=1, seq_high=3)

    assert told(handler, status(EPOCH)) == []
    assert told(handler, status(EPOCH - 1)) == [("epoch.raise", {"refused": EPOCH - 1, "above": EPOCH})]


@pytest.mark.services
def test_who_holds_a_session_that_ended_is_told_to_forget_it(handler):
    assert told(handler, checkpoint(1), closed(2)) == []
    assert told(handler, change(3)) == [], "a change alone proves nothing: it may be old"
    assert told(handler, checkpoint(3, DeviceRecord(state="online"))) == [("forget", {"session": SESSION})]
    assert told(handler, checkpoint(3, DeviceRecord(state="online"))) == []


@pytest.mark.services
def test_a_checkpoint_behind_the_end_in_one_batch_is_told(handler):
    assert told(handler, checkpoint(1), closed(2), checkpoint(3)) == [("forget", {"session": SESSION})]


@pytest.mark.services
def test_what_has_no_token_is_told_behind_a_later_batch_that_asks_for_nothing(handler):
    sessions = [session_id(number) for number in range(70)]
    ended = [
        message for session in sessions for message in (closed(2, session=session), checkpoint(3, session=session))
    ]
    found = told(handler, *ended)
    assert len(found) < len(sessions)
    deadline_s = time.monotonic() + 60
    while len(found) < len(sessions):
        assert time.monotonic() < deadline_s, f"{len(found)} of {len(sessions)} were told"
        found += told(handler, change(3))
    assert sorted(args["session"] for _, args in found) == sessions


def teller():
    numbers = itertools.count(1)
    return Teller(random=lambda: 0.0, new_id=lambda: f"r{next(numbers)}")


def test_a_flood_is_bounded_by_the_bucket_and_each_thing_by_its_backoff():
    def sessions(asks, now_s):
        return [json.loads(said.value)["args"]["session"] for said in telling.due(asks, now_s=now_s, at=AT)]

    asks = Asks()
    for number in range(100):
        asks.forget(RAE, session_id(number))
    telling = teller()
    assert sessions(asks, 0.0) == [session_id(number) for number in range(50)]
    assert sessions(asks, 1.0) == [session_id(number) for number in range(50, 60)]
    assert sessions(Asks(), 9.0) == [session_id(number) for number in range(60, 100)], "what was left waits for nobody"
    one = Asks()
    one.forget(RAE, session_id(0))
    assert sessions(one, 59.0) == []
    assert sessions(one, 61.0) == [session_id(0)]


def test_of_several_epochs_of_one_rae_the_highest_is_told():
    asks = Asks()
    assert not asks
    for refused, above in ((5, 9), (7, 9), (6, 9)):
        asks.take(RAE, Verdict(outcome="lower_epoch", epoch_raise=EpochRaise(refused=refused, above=above)))
    assert [(rae, session, raised.refused) for rae, session, raised in asks] == [(RAE, "rae", 7)]
    (said,) = teller().due(asks, now_s=0.0, at=AT)
    assert json.loads(said.value)["args"] == {"refused": 7, "above": 9}
