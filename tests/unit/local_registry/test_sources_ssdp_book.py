"""What messages and silence say, and how little a flood is worth."""

import pytest

from dmpd.local_registry.sources.dial_description import Description, DialApp
from dmpd.local_registry.sources.ssdp_book import (
    BYEBYE_WAIT_S,
    NEWS_BURST,
    SERVICES_MAX,
    SIGN_INTERVAL_S,
    SPEAKERS_MAX,
    UNANSWERED_INTERVAL_S,
    SsdpBook,
)
from dmpd.local_registry.sources.ssdp_gate import (
    KNOWN_BURST,
    SENDER_BURST,
    SENDER_PER_S,
    SENDERS_MAX,
    STRANGERS_BURST,
    Bucket,
    SenderGate,
)
from dmpd.local_registry.sources.ssdp_message import DIAL_TARGET, MDX_TARGETS, ROOT_TARGET, SsdpMessage, Wakeup

MAC, IP, ESN = "3c:12:aa:00:00:01", "10.77.1.1", "SIMTV-0001"


def message(kind="reply", target=MDX_TARGETS[0], uuid=ESN, **more) -> SsdpMessage:
    esn = uuid if target in MDX_TARGETS else None
    return SsdpMessage(kind=kind, uuid=uuid, target=target, **{"esn": esn, **more})


def heard(book, now_s, *messages, mac=MAC, ip=IP):
    return [one for said in messages for one in book.heard(said, ip=ip, mac=mac, now_s=now_s)]


def test_a_reply_tells_the_esn_and_that_it_lives():
    (said,) = heard(SsdpBook(), 5.0, message(name="TV"))
    assert (said.mac, said.ip, said.esn, said.esn_source, said.name) == (MAC, IP, ESN, "mdx", "TV")
    assert (said.reach, said.power, said.seen_at_s) == ("up", "on", 5.0)


def test_the_same_again_is_only_a_sign_of_life_now_and_then():
    book = SsdpBook()
    assert heard(book, 0.0, message(), message(), message()) != []
    assert heard(book, SIGN_INTERVAL_S - 0.1, message()) == []
    assert len(heard(book, SIGN_INTERVAL_S, message())) == 1


def test_who_changes_its_mind_all_the_time_is_told_seldom():
    book = SsdpBook()
    said = [one for i in range(10_000) for one in heard(book, i / 1000, message(uuid=f"SIMTV-{i:05d}"))]
    assert len(said) <= NEWS_BURST + 3
    assert len(book._speakers[MAC].services) <= SERVICES_MAX


def test_a_farewell_is_believed_after_a_silence_and_the_speaker_is_asked():
    book = SsdpBook()
    heard(book, 0.0, message())
    assert heard(book, 1.0, message("byebye")) == []
    assert book.take_doubtful() == [IP]
    assert book.tick(1.0 + BYEBYE_WAIT_S - 0.1) == []
    (said,) = book.tick(1.0 + BYEBYE_WAIT_S)
    assert (said.mac, said.power, said.reach, said.gone) == (MAC, "standby", None, False)
    assert list(book.known()) == []


def test_a_farewell_in_anothers_name_is_refuted_by_its_answer():
    book = SsdpBook()
    heard(book, 0.0, message())
    heard(book, 1.0, message("byebye"))
    heard(book, 1.2, message())
    assert book.tick(100.0) == []


def test_one_service_of_two_may_leave():
    book = SsdpBook()
    heard(book, 0.0, message(), message(target=DIAL_TARGET, uuid="dial"))
    heard(book, 1.0, message("byebye"))
    assert (book.take_doubtful(), book.tick(10.0)) == ([], [])


def test_a_farewell_of_nobody_says_nothing():
    book = SsdpBook()
    assert heard(book, 0.0, message("byebye")) == []
    heard(book, 1.0, message())
    assert heard(book, 2.0, message("byebye", uuid="another")) == []
    assert (book.take_doubtful(), book.tick(10.0)) == ([], [])


def test_who_can_be_woken_sleeps():
    book = SsdpBook()
    heard(book, 0.0, message(wakeup=Wakeup(mac=MAC, timeout_s=60)))
    heard(book, 1.0, message("byebye"))
    (said,) = book.tick(10.0)
    assert said.power == "asleep"


def test_age_alone_ends_nothing_but_unanswered_searches_do():
    book = SsdpBook()
    heard(book, 0.0, message(max_age_s=30.0))
    assert book.tick(1000.0) == []
    for turn in range(3):
        assert book.tick(1000.0) == []
        book.asked(1000.0 + turn)  # too close together to count
    assert book.tick(1003.0) == []
    book.asked(1000.0 + UNANSWERED_INTERVAL_S)
    book.asked(1000.0 + 2 * UNANSWERED_INTERVAL_S, mac=MAC)
    assert [one.power for one in book.tick(1020.0)] == ["standby"]


def test_unanswered_searches_within_the_age_end_nothing():
    book = SsdpBook()
    heard(book, 0.0, message(max_age_s=1800.0))
    for turn in range(10):
        book.asked(100.0 + 10 * turn)
    assert book.tick(300.0) == []
    assert not book.speaks(MAC)


def test_descriptions_add_names_and_that_of_dial_counts_most():
    book = SsdpBook()
    heard(book, 0.0, message(target=ROOT_TARGET, uuid="root"))
    (said,) = book.described(Description(name="R", model="M1"), None, mac=MAC, from_dial=False, now_s=1.0)
    assert (said.reach, said.power) == (None, None), "its device may have gone since it was asked"
    assert (said.name, said.model, said.esn_source) == ("R", "M1", None)
    app = DialApp(name="Netflix", state="running")
    dial = Description(name="D", manufacturer="Aster", model="M2", udn="u")
    (said,) = book.described(dial, app, mac=MAC, from_dial=True, now_s=2.0)
    assert (said.name, said.manufacturer, said.model) == ("D", "Aster", "M2")
    assert said.attributes == {"udn": b'"u"', "dial_app": b'{"name":"Netflix","state":"running","stoppable":false}'}
    assert book.described(Description(name="R"), None, mac=MAC, from_dial=False, now_s=3.0) == []
    assert book.described(dial, None, mac="3c:12:aa:00:00:02", from_dial=True, now_s=3.0) == []
    assert [(one.reach, one.power, one.model) for one in book.known()] == [(None, None, "M2")]


@pytest.mark.parametrize(
    ("before", "said", "wanted"),
    [
        ((), message(target=DIAL_TARGET, location="http://x"), True),
        ((), message(target=ROOT_TARGET, location="http://x"), True),
        ((), message(location="http://x"), False),
        ((), message(target=DIAL_TARGET), False),
        ((message(target=DIAL_TARGET),), message(target=ROOT_TARGET, location="http://x"), False),
    ],
)
def test_which_descriptions_are_wanted(before, said, wanted):
    book = SsdpBook()
    heard(book, 0.0, *before, said)
    assert book.wants_description(said, MAC) is wanted


def test_the_book_is_bounded():
    book = SsdpBook()
    for number in range(SPEAKERS_MAX + 10):
        heard(book, 0.0, message(), mac=f"3c:12:aa:00:{number >> 8:02x}:{number & 255:02x}")
    assert (len(list(book.known())), book.refused) == (SPEAKERS_MAX, 10)


def test_a_bucket_gives_its_burst_then_its_rate():
    bucket = Bucket(per_s=2.0, burst=3.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(50.0), "a clock that goes back gives nothing"


def test_a_loud_sender_uses_up_only_its_own_budget():
    gate = SenderGate()
    admitted = sum(gate.admits("10.77.1.1", i / 10_000, known=True) for i in range(10_000))
    assert admitted <= SENDER_BURST + SENDER_PER_S + 1
    assert gate.admits("10.77.1.2", 1.0, known=True)


def test_made_up_senders_cannot_silence_known_ones():
    gate = SenderGate()
    strangers = sum(gate.admits(f"10.{i >> 8 & 255}.{i & 255}.1", 0.0, known=False) for i in range(10_000))
    assert strangers == STRANGERS_BURST
    assert len(gate._senders) <= SENDERS_MAX
    known = sum(gate.admits(f"172.16.{i >> 8}.{i & 255}", 0.0, known=True) for i in range(10_000))
    assert known == KNOWN_BURST
