"""A feed of a RAE per partition whose rows are known at any time: produced to Kafka, and applied by the model."""

import msgspec
from msgspec import Raw

from dmpd.cloud_registry.same_json import same_record
from dmpd.model.apply import apply_message
from dmpd.model.codec import encode
from dmpd.model.record import DeviceRecord, RecordPatch
from dmpd.model.topics import info_topic, partition_of
from tests.support.messages import change, checkpoint, session_id
from tests.support.rows import rows_of


class Feed:
    """Each session's first message is a checkpoint; all others change two attributes and the state."""

    def __init__(self, producer, topic, *, partitions, sessions=20):
        self._producer = producer
        self._topic = topic
        self._partitions = partitions
        names = {partition_of(f"R-{n}", partitions): f"R-{n}" for n in range(50 * partitions)}
        assert len(names) == partitions, "a RAE in each"
        self._keys = [(rae, session_id(place * 1000 + n)) for place, rae in names.items() for n in range(sessions)]
        self.expected = {}
        """Rows by session."""
        self.produced = 0

    def burst(self, revs):
        """The next ``revs`` revisions of every session, delivered when it returns."""
        for _ in range(revs):
            for rae, session in self._keys:
                self._say(rae, self._next(session))
        assert self._producer.flush(60) == 0

    def checkpoints(self):
        """What every RAE sends each ten minutes, or when it is asked for."""
        for rae, session in self._keys:
            row = self.expected[session]
            self._say(rae, checkpoint(row.rev, row.record, session=session))
        assert self._producer.flush(60) == 0

    def garbage(self, rae, count):
        for number in range(count):
            self._produce(rae, info_topic(rae, session_id(number)), b"{")
        assert self._producer.flush(60) == 0

    @property
    def revs(self):
        return sum(row.rev for row in self.expected.values())

    def assert_stored(self, connection):
        """Every row is exactly the model's."""
        found = rows_of(connection)
        assert found.keys() == self.expected.keys()
        for session, row in self.expected.items():
            assert same_record(found[session].record, row.record), session
            assert msgspec.structs.replace(found[session], record=row.record) == row

    def _next(self, session):
        row = self.expected.get(session)
        rev = 1 if row is None else row.rev + 1
        attributes = {
            f"a{rev % 4}": Raw(str(rev).encode()),
            "rev": Raw(str(rev).encode()),
            "pad": Raw(b'"%s"' % (b"x" * 99)),
        }
        state = ("online", "asleep")[rev % 2]
        if row is None:
            return checkpoint(1, DeviceRecord(attributes=attributes, state=state), session=session, seq=1)
        return change(rev, patch=RecordPatch(attributes=attributes, state=state), session=session, seq=rev)

    def _say(self, rae, message):
        message = msgspec.structs.replace(message, rae=rae)
        self.expected[message.session], _ = apply_message(self.expected.get(message.session), message)
        self._produce(rae, info_topic(rae, message.session), encode(message))
        self.produced += 1

    def _produce(self, rae, key, value):
        self._producer.produce(self._topic, value, key.encode(), partition_of(rae, self._partitions))
        self._producer.poll(0)
