"""librdkafka's mock Kafka cluster, driven by ctypes on the client's own library: up in milliseconds, errors on demand.

It dies with its owner and its threads do not survive a fork, so it runs in the test's process. Not to be trusted for:
restarts, authentication, partition growth, commits while an eager group rebalances; a real broker is for those.
API keys for ``errors``: 0 Produce, 1 Fetch, 8 OffsetCommit, 9 OffsetFetch, 10 FindCoordinator, 11 JoinGroup,
12 Heartbeat, 14 SyncGroup; error -195 disconnects.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka

_V, _S, _I = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_I16, _I32, _Z = ctypes.c_int16, ctypes.c_int32, ctypes.c_size_t
_PROTOTYPES = {
    "rd_kafka_conf_new": (_V, []),
    "rd_kafka_conf_set": (_I, [_V, _S, _S, _S, _Z]),
    "rd_kafka_new": (_V, [_I, _V, _S, _Z]),
    "rd_kafka_destroy": (None, [_V]),
    "rd_kafka_mock_cluster_new": (_V, [_V, _I]),
    "rd_kafka_mock_cluster_destroy": (None, [_V]),
    "rd_kafka_mock_cluster_bootstraps": (_S, [_V]),
    "rd_kafka_mock_topic_create": (_I, [_V, _S, _I, _I]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_V, _I32]),
    "rd_kafka_mock_push_request_errors_array": (None, [_V, _I16, _Z, ctypes.POINTER(_I)]),
    "rd_kafka_mock_partition_delete_records": (_I, [_V, _S, _I32, ctypes.c_int64]),
    "rd_kafka_mock_broker_set_rtt": (_I, [_V, _I32, _I]),
    "rd_kafka_headers_new": (_V, [_Z]),
    "rd_kafka_header_add": (_I, [_V, _S, ctypes.c_ssize_t, _S, ctypes.c_ssize_t]),
    "rd_kafka_flush": (_I, [_V, _I]),
    "rd_kafka_test_fatal_error": (_I, [_V, _I, _S]),
    "rd_kafka_mock_broker_set_down": (_I, [_V, _I32]),
    "rd_kafka_mock_broker_set_up": (_I, [_V, _I32]),
    "rd_kafka_mock_partition_set_leader": (_I, [_V, _S, _I32, _I32]),
}


def _library() -> ctypes.CDLL:
    site = Path(confluent_kafka.__file__).parents[1]
    lib = ctypes.CDLL(str(next((site / "confluent_kafka.libs").glob("librdkafka*"))))
    for name, (restype, argtypes) in _PROTOTYPES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = restype, argtypes
    return lib


def plant_fatal_error(client: confluent_kafka.Consumer) -> None:
    """Put a real client into its fatal state, as a fenced instance is. The handle is what its object begins with."""
    handle = ctypes.c_void_p.from_address(id(client) + object.__basicsize__).value
    assert _library().rd_kafka_test_fatal_error(handle, confluent_kafka.KafkaError.FENCED_INSTANCE_ID, b"planted") == 0


def produce_with_header_name(bootstrap: str, topic: str, value: bytes, name: bytes) -> None:
    """One record to partition 0 with a header of any bytes as name, which the Python client cannot make."""
    lib, error = _library(), ctypes.create_string_buffer(512)
    conf = lib.rd_kafka_conf_new()
    lib.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), error, 512)
    producer, headers = lib.rd_kafka_new(0, conf, error, 512), lib.rd_kafka_headers_new(1)
    assert producer, error.value
    assert lib.rd_kafka_header_add(headers, name, len(name), b"x", 1) == 0
    of_topic, of_partition, of_value, copied, of_headers = 1, 3, 4, 2, 10  # rd_kafka_vtype_t, and RD_KAFKA_MSG_F_COPY
    arguments = [_I(of_topic), _S(topic.encode()), _I(of_partition), _I32(0), _I(7), _I(copied)]
    arguments += [_I(of_value), _S(value), _Z(len(value)), _I(of_headers), _V(headers), _I(0)]
    assert lib.rd_kafka_producev(_V(producer), *arguments) == 0
    assert lib.rd_kafka_flush(producer, 10_000) == 0
    lib.rd_kafka_destroy(producer)


@contextmanager
def running(topics: dict[str, int]) -> Iterator["MockCluster"]:
    """A cluster with these topics, by name their partitions; ended with the context."""
    cluster = MockCluster()
    for name, partitions in topics.items():
        cluster.topic(name, partitions)
    yield cluster
    cluster.close()


class MockCluster:
    """One cluster on 127.0.0.1 with random ports."""

    def __init__(self, brokers: int = 1, *, join_delay_ms: int = 0, **conf: object) -> None:
        self._lib = _library()
        error = ctypes.create_string_buffer(512)
        c = self._lib.rd_kafka_conf_new()
        for key, value in conf.items():
            self._lib.rd_kafka_conf_set(c, key.replace("_", ".").encode(), str(value).encode(), error, 512)
        self._rk = self._lib.rd_kafka_new(0, c, error, 512)  # 0 = producer; it only owns the cluster
        assert self._rk, error.value
        self._mc = self._lib.rd_kafka_mock_cluster_new(self._rk, brokers)
        assert self._mc
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._mc, join_delay_ms)  # default 3000
        self.bootstrap: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._mc).decode()

    def topic(self, name: str, partitions: int, replication: int = 1) -> None:
        code = self._lib.rd_kafka_mock_topic_create(self._mc, name.encode(), partitions, replication)
        assert code == 0, code

    def delete_records(self, name: str, partition: int, before_offset: int) -> None:
        """What retention does."""
        code = self._lib.rd_kafka_mock_partition_delete_records(self._mc, name.encode(), partition, before_offset)
        assert code == 0, code

    def errors(self, api_key: int, codes: list[int]) -> None:
        """Answer the next requests of this kind with these error codes, in order."""
        self._lib.rd_kafka_mock_push_request_errors_array(self._mc, api_key, len(codes), (_I * len(codes))(*codes))

    def leader(self, name: str, partition: int, broker: int) -> None:
        code = self._lib.rd_kafka_mock_partition_set_leader(self._mc, name.encode(), partition, broker)
        assert code == 0, code

    def down(self, broker: int = -1) -> None:
        self._lib.rd_kafka_mock_broker_set_down(self._mc, broker)

    def up(self, broker: int = -1) -> None:
        self._lib.rd_kafka_mock_broker_set_up(self._mc, broker)

    def rtt(self, ms: int, broker: int = -1) -> None:
        self._lib.rd_kafka_mock_broker_set_rtt(self._mc, broker, ms)

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._mc)
        self._lib.rd_kafka_destroy(self._rk)
