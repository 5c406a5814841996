"""The measured rate of a worker, and what the marks make of it, whatever comes and however the worker stalls."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dmpd.stream.flow import Flow, marks_for
from dmpd.stream.release_rate import ReleaseRate

RING, LARGEST, DRAIN_S = 8 << 20, 1 << 20, 30.0
LOOK_S = 0.05


class Model:
    """A ring between arrivals and a worker that takes all there is, as ``latency_s + bytes / capacity`` per batch."""

    def __init__(self, *, capacity, latency_s=0.0):
        self.capacity, self.latency_s = capacity, latency_s
        self.rate, self.now_s = ReleaseRate(LARGEST // 2), 100.0
        self.published = self.released = 0
        self.batch_end = self.free_at_s = None
        self.works, self.pauses, self.stalled = True, 0, False
        self.flow = Flow(self._marks())

    def _marks(self):
        return marks_for(
            ring_bytes=RING,
            max_record_bytes=LARGEST,
            rate_bytes_per_s=self.rate.bytes_per_s,
            drain_timeout_s=DRAIN_S,
            is_floor=self.rate.is_floor,
        )

    def step(self, arriving=0, *, step_s=0.02):
        until_s = self.now_s + step_s
        while not self.stalled and self.batch_end is not None and self.free_at_s <= until_s:
            self.now_s = max(self.now_s, self.free_at_s)
            self.released, self.batch_end = self.batch_end, None
            self._begin()
            self._note()
        self.now_s = until_s
        self.published += arriving
        self._begin()
        self._note()

    def _begin(self):
        if self.batch_end is None and self.published > self.released:
            self.batch_end = self.published
            self.free_at_s = self.now_s + self.latency_s + (self.published - self.released) / self.capacity

    def _note(self):
        open_bytes = self.published - self.released
        if self.rate.note(self.now_s, released=self.released, open_bytes=open_bytes, works=self.works):
            self.flow.marks = self._marks()
        if self.flow.wants_pause(open_bytes):
            self.flow.pause(self.now_s)
            self.pauses += 1
        elif self.flow.wants_resume(open_bytes):
            self.flow.resumed(self.now_s)

    def run(self, seconds, per_s, *, step_s=0.02):
        """``per_s`` arrive while it is not paused."""
        for _ in range(int(seconds / step_s)):
            self.step(0 if self.flow.paused else int(per_s * step_s), step_s=step_s)


few = settings(deadline=None, max_examples=30)
capacities = st.floats(100_000, 50e6)


@few
@given(st.floats(100_000, 20e6), st.floats(0.01, 0.5), st.floats(0, 0.05))
def test_no_pause_at_steady_half_load(capacity, share, latency_s):
    """From the start on, up to 10 MB/s in one partition: until the first release the mark is 1 MiB."""
    model = Model(capacity=capacity, latency_s=latency_s)
    model.run(20, capacity * share)
    assert model.pauses == 0


@few
@given(capacities)
def test_under_load_the_rate_is_the_workers_and_the_mark_drains_in_half_the_deadline(capacity):
    model = Model(capacity=capacity)
    model.run(40, capacity * 3)
    assert model.rate.bytes_per_s is not None
    assert 0.6 * capacity <= model.rate.bytes_per_s <= 1.4 * capacity
    assert model.flow.marks.high_bytes <= max(LARGEST + 256, 1.4 * capacity * DRAIN_S / 2)


@few
@given(st.floats(1e6, 50e6), st.floats(0.001, 0.2), st.integers(1, 300))
def test_a_trickle_never_lowers_the_mark(capacity, latency_s, record_bytes):
    """Batches of one record are all latency: whatever they take, a burst after them finds the mark as it was."""
    model = Model(capacity=capacity, latency_s=latency_s)
    model.run(20, capacity * 2)
    while model.published > model.released:
        model.step()
    before = model.flow.marks
    for _ in range(100):
        model.step(record_bytes)
        for _ in range(15):
            model.step()
    assert model.flow.marks.high_bytes >= before.high_bytes


@few
@given(st.floats(1e6, 50e6), st.floats(1, 300))
def test_one_long_batch_does_not_drive_the_mark_down_and_after_a_stall_it_recovers(capacity, stall_s):
    model = Model(capacity=capacity)
    model.run(20, capacity * 2)
    before = model.flow.marks.high_bytes
    model.stalled = True
    model.run(stall_s, capacity, step_s=0.5)
    assert model.flow.marks.high_bytes == before
    model.stalled = False
    model.run(60, capacity * 2)
    assert model.flow.marks.high_bytes >= 0.8 * before


@few
@given(st.floats(1e6, 50e6), st.floats(1, 300))
def test_an_outage_of_the_sink_is_no_measure_of_the_worker(capacity, outage_s):
    model = Model(capacity=capacity)
    model.run(20, capacity * 2)
    before = model.rate.bytes_per_s
    model.stalled, model.works = True, False
    model.run(outage_s, capacity, step_s=0.5)
    model.stalled = False
    model.step()
    model.works = True
    assert model.rate.bytes_per_s == before


@few
@given(st.floats(1e6, 20e6), st.floats(60, 1e6))
def test_a_parent_that_was_frozen_calls_no_worker_slow(capacity, frozen_s):
    model = Model(capacity=capacity)
    model.run(20, capacity * 2)
    assume(model.published > model.released)
    before = model.rate.bytes_per_s
    model.step(step_s=frozen_s)
    assert model.rate.bytes_per_s >= 0.5 * before


def test_a_first_small_release_opens_the_ring_of_a_fast_worker():
    model = Model(capacity=5e6)
    assert model.flow.marks.high_bytes == LARGEST + 256
    model.run(0.2, 10_000)
    assert model.flow.marks.high_bytes > 2 * LARGEST


def test_the_speed_of_small_batches_is_a_floor_until_a_large_one_tells_more():
    rate = ReleaseRate(plenty_bytes=1000)
    rate.note(1.0, released=0, open_bytes=100, works=True)
    rate.note(1.5, released=100, open_bytes=2000, works=True)
    assert (rate.bytes_per_s, rate.is_floor) == (200.0, True)
    rate.note(2.5, released=2100, open_bytes=0, works=True)
    assert (rate.bytes_per_s, rate.is_floor) == (2000.0, False)


@few
@given(capacities, st.floats(0.001, 1.0))
def test_what_a_floor_lets_in_drains_within_the_deadline(capacity, latency_s):
    model = Model(capacity=capacity, latency_s=latency_s)
    model.run(3.0, 20_000)  # a trickle: the worker is never seen under load
    assert model.rate.bytes_per_s is None or model.rate.is_floor
    assert model.flow.marks.high_bytes <= max(LARGEST + 256, capacity * DRAIN_S)


def test_a_slow_worker_gets_no_more_than_it_drains_in_half_the_deadline():
    model = Model(capacity=200_000)
    model.run(60, 2e6)
    assert 2.5e6 <= model.flow.marks.high_bytes <= 3.5e6
    assert model.pauses >= 1
