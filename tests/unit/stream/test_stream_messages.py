"""What the client gives, sorted out."""

from confluent_kafka import KafkaError, Message

from dmpd.stream.messages import by_partition, errors_apart, is_fatal, is_out_of_range


def message(partition=0, offset=0, error=None):
    return Message(topic="t", partition=partition, offset=offset, error=error)


def test_each_partition_keeps_its_order_also_when_they_alternate():
    given = [message(0, 1), message(0, 2), message(1, 7), message(0, 3)]
    found = by_partition(given)
    assert {number: [m.offset() for m in group] for number, group in found.items()} == {0: [1, 2, 3], 1: [7]}


def test_those_of_one_partition_and_none_at_all():
    given = [message(3, 1), message(3, 2)]
    assert by_partition(given) == {3: given}
    assert by_partition([]) == {}


def test_errors_are_taken_out():
    broken = message(error=KafkaError(KafkaError._PARTITION_EOF))
    good = message(0, 1)
    assert errors_apart([good]) == ([good], ())
    assert errors_apart([broken, good]) == ([good], [broken])


def test_a_fatal_error_is_known_by_its_code_too():
    assert is_fatal(KafkaError(KafkaError._FATAL)), "as a consumer's message brings it"
    assert is_fatal(KafkaError(KafkaError.FENCED_INSTANCE_ID, "fenced", True))
    assert not is_fatal(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert is_out_of_range(KafkaError(KafkaError._AUTO_OFFSET_RESET))
    assert not is_out_of_range(KafkaError(KafkaError._FATAL))
