"""The sentences of an explanation: one verdict for each condition of a row, and the hops' times."""

from datetime import timedelta

import msgspec
import pytest

from dmpd.cloud_registry.explain import Applied, InKafka, LastLetter, Pending, explain
from dmpd.cloud_registry.query import DeviceDetail, Rae
from dmpd.model.apply import DeviceRow
from dmpd.model.messages import Status
from tests.support.messages import AT, EPOCH, RAE, SESSION, session_id

NOW = AT + timedelta(seconds=600)
WRITTEN = AT + timedelta(seconds=1)

ROW = DeviceRow(rae=RAE, session=SESSION, epoch=EPOCH, rev=7, seq=9, changed_at=AT)
APPLIED = Applied(
    kind="change",
    epoch=EPOCH,
    rev=7,
    cause="dhcp",
    said_at=AT,
    received_at=AT + timedelta(milliseconds=40),
    in_kafka_at=AT + timedelta(milliseconds=45),
)
KAFKA = InKafka(
    applied=APPLIED, lag=0, pending=[], pending_complete=True, letter=None, letters_complete=True, asked_at=None
)


def device(**changes):
    row = msgspec.structs.replace(ROW, **changes)
    return DeviceDetail(row=row, reachable=True, kafka_partition=3, kafka_offset=41, applied_at=WRITTEN, events=[])


def rae(*, reachable=True, state="ready", epoch=EPOCH, **status):
    said = Status(v=1, rae=RAE, session="rae", at=AT, epoch=epoch, state=state, run=4, seq_high=9, **status)
    return Rae(
        rae=RAE,
        reachable=reachable,
        state=state,
        heard_at=AT,
        silence_s=600.0,
        devices=1,
        online=1,
        stale=0,
        status=said,
    )


def why(row, of_rae, kafka=KAFKA, **more):
    return "\n".join(explain(row, of_rae, kafka, now=NOW, **more).why)


def kafka(**changes):
    return msgspec.structs.replace(KAFKA, **changes)


LETTER = LastLetter(place="2 17", at=WRITTEN + timedelta(seconds=5), reason="range", detail="rev 0")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (why(device(), rae()), "The row is exact: it is what the RAE had at epoch"),
        (why(device(), rae()), "partition 3, offset 41: a change of rev 7, cause dhcp."),
        (why(device(), rae()), "had nothing left to send"),
        (why(device(), rae()), "Partition 3 has caught up"),
        (why(device(stale=True), rae()), "The row is stale: something before rev 7 was missed"),
        (why(device(stale=True), rae()), "No request for a checkpoint was found"),
        (
            why(device(stale=True), rae(), kafka(asked_at=WRITTEN)),
            "A checkpoint was asked for at 2026-11-25 04:00:01Z; only a checkpoint makes it exact.",
        ),
        (why(device(absent=True), rae()), "It is absent: its RAE's list of devices did not have it"),
        (
            why(device(closed="merged", successor=session_id(2)), rae()),
            f"The device session ended (merged), and goes on as {session_id(2)}",
        ),
        (why(device(), rae(reachable=False, state="lost")), "cannot be reached (it is lost, nothing was heard for 600"),
        (why(device(), None), "RAE-7 has never said how it is"),
        (why(device(), rae(outbox_rows=5, outbox_age_s=12.2)), "5 of its changes wait to be sent, the oldest for 12 s"),
        (why(device(), rae(epoch=EPOCH + 1)), "The RAE is in a later epoch"),
        (why(device(), rae(epoch=EPOCH - 1)), "outranks that of the RAE"),
        (why(device(), rae(), kafka(lag=9)), "9 records wait in partition 3, none of this device"),
        (why(device(), rae(), kafka(lag=9, pending_complete=False)), "9 records wait in partition 3, none of those"),
        (
            why(device(), rae(), kafka(lag=9, pending=[Pending(offset=50, kind="change", rev=8)])),
            "1 newer record of this device waits in Kafka (the last: change at offset 50).",
        ),
        (
            why(device(), rae(), kafka(letter=LETTER)),
            (
                "Its last dead letter came at 2026-11-25 04:00:06Z after the row was written: range: rev 0"
                " (dmpctl dead-letters show 2 17)."
            ),
        ),
        (why(device(), rae(), kafka(letters_complete=False)), "older ones were not looked at (--scan)"),
        (why(device(), rae(), kafka(applied=None)), "offset 41, which Kafka no longer has."),
        (why(device(), rae(), None, kafka_problem="nobody there"), "What Kafka has is not known: nobody there"),
    ],
)
def test_conditions_are_said_in_words(found, words):
    assert words in found


def test_an_exact_row_is_not_called_anything_else():
    said = why(device(), rae())
    for word in ("stale", "absent", "ended", "cannot", "epoch outranks", "dead letter"):
        assert word not in said


def test_hops_are_timed_one_after_the_other():
    found = explain(device(), rae(), KAFKA, now=NOW).hops
    assert [(hop.clock, hop.after_s) for hop in found] == [
        ("RAE", None),
        ("bridge", 0.04),
        ("Kafka", 0.005),
        ("database", 0.955),
    ]
    without = explain(device(), rae(), kafka(applied=None), now=NOW).hops
    assert [(hop.name, hop.after_s) for hop in without] == [("said by the RAE", None), ("row written", 1.0)]
