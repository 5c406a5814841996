"""The history checker finds what it is there to find."""

from dmpd.runtime.settings import MqttSettings
from tests.support.ledger import Publisher, problems, unseen


def history() -> tuple[Publisher, list[tuple[bytes, bytes]]]:
    """Eight rows of two sessions, four of each, as they should stand in Kafka."""
    publisher = Publisher("A1", MqttSettings(), rows=8, sessions=2)
    return publisher, [(topic.encode(), payload) for topic, payload in publisher.rows.values()]


def test_all_in_order_with_duplicates_is_well() -> None:
    publisher, records = history()
    assert problems([publisher], records) == []
    assert problems([publisher], records[:5] + records) == []
    assert unseen([publisher], records[:5] + records) == ([], [])


def test_lost_invented_foreign_and_reordered_are_found() -> None:
    publisher, records = history()
    key = records[2][0].decode()
    assert problems([publisher], records[:2] + records[3:]) == [f"{key}: 1 lost"]
    assert problems([publisher], [*records, (records[2][0], b"{}")]) == [f"{key}: 1 invented"]
    foreign = Publisher("B2", MqttSettings(), rows=1)
    topic, payload = foreign.rows[1]
    assert problems([publisher], [*records, (topic.encode(), payload)]) == [f"{topic}: 1 invented"]
    swapped = [*records[:2], records[4], records[3], records[2], *records[5:]]
    assert problems([publisher], swapped) == [f"{key}: first occurrences out of order"]


def test_a_gap_is_a_problem_until_a_checkpoint_has_healed_it() -> None:
    publisher, records = history()
    swapped = [*records[:2], records[4], records[3], records[2], *records[5:]]
    found, stale = unseen([publisher], swapped)
    assert found == []
    assert [row.session for row in stale] == [records[2][0].decode().split("/")[3]]
    publisher.commit_checkpoint(stale[0].session)
    topic, payload = publisher.rows[9]
    assert unseen([publisher], [*swapped, (topic.encode(), payload)]) == ([], [])


def test_a_row_that_says_something_old_without_being_stale_is_found() -> None:
    publisher, records = history()
    found, _ = unseen([publisher], records[:-1])
    assert len(found) == 2, "lost, and wrong"
