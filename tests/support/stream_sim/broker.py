"""Two partitions: what is in them, what is committed, what was done to each record; and who breaks a promise."""

from dmpd.runtime.kafka_memory import MemoryKafka

PARTITIONS = 2
RECORDS = 24
RECORD_BYTES = 2000
KINDS = [b"good"] * 60 + [b"bad"] * 2 + [b"deadly"]
RARE = [b"hanging", b"raising", b"good", b"good"]


class ViolationError(AssertionError):
    """A promise of the stream was broken."""


class Broker:
    """Offsets count from 0. ``lower_committed`` is what a late commit of another member may do at any time."""

    def __init__(self, values):
        self.values = values
        self.start = dict.fromkeys(values, 0)
        self.committed = dict.fromkeys(values)
        self.answered = dict.fromkeys(values)
        """The last commit of ours that was taken, whatever others committed since."""
        self.durable = {p: set() for p in values}
        self.deleted = {p: set() for p in values}
        self.generation = 1
        self.dead = MemoryKafka()
        self.dead.create_topic("d")
        self._letters_seen = 0
        self._letters = {p: {} for p in values}

    @classmethod
    def of(cls, dice):
        kinds = [*KINDS, dice.choice(RARE)]
        return cls({p: dice.choices(kinds, k=RECORDS) for p in range(PARTITIONS)})

    def dead_letters(self, partition):
        """Value and headers by offset."""
        topic = self.dead.topics["d"][0]
        for record in topic[self._letters_seen :]:
            headers = dict(record.headers)
            self._letters[int(headers["dmpd-partition"])][int(headers["dmpd-offset"])] = record.value, headers
        self._letters_seen = len(topic)
        return self._letters[partition]

    def settled(self, partition, offset):
        return (
            offset in self.durable[partition]
            or offset in self.deleted[partition]
            or offset in self.dead_letters(partition)
        )

    def commit(self, offsets):
        for partition, offset in offsets.items():
            missing = [n for n in range(offset) if not self.settled(partition, n)]
            if missing:
                raise ViolationError(f"partition {partition} committed to {offset}, nobody handled {missing}")
            self.committed[partition] = offset

    def lower_committed(self, partition, by):
        """A late commit of a frozen former owner: the broker takes it."""
        if self.committed[partition]:
            self.committed[partition] = max(self.start[partition], self.committed[partition] - by)

    def retention(self, partition, offset):
        for n in range(self.start[partition], offset):
            if n not in self.durable[partition]:
                self.deleted[partition].add(n)
        self.start[partition] = max(self.start[partition], offset)

    def is_finished(self, partition):
        end = len(self.values[partition])
        return (self.committed[partition] or 0) >= end or self.start[partition] >= end
