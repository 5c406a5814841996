"""How a history ends: by a drain, and what must hold then."""

from tests.support.stream_sim.broker import ViolationError


class EndedError(Exception):
    """The parent ended its process."""


def drain(sim, faults=()):
    """TERM, as ``Parent.run`` does it, faults going on. Ends by the promise or the deadline; returns the code."""
    began_s = sim.now_s
    sim.lifecycle.stops += 1
    sim.parent._begin_drain(sim.now_s)
    try:
        while not sim.parent._is_drained():
            if faults and sim.dice.random() < 0.2:
                sim.dice.choice(faults)(sim)
            sim.turn()
            if sim.now_s > began_s + sim.parent._settings.drain_timeout_s + 60:
                raise ViolationError("the drain's deadline did not hold")
            sim.parent._drain.enforce(sim.lifecycle, sim.parent._remainder)
    except EndedError as ended:
        sim.die()
        return ended.args[0]
    check_drained(sim)
    return sim.parent._leave()


def check_drained(sim):
    for number, partition in sim.parent._partitions.items():
        if not partition.ledger.is_complete and not partition.standstill.is_halted:
            raise ViolationError(f"partition {number}: drained with {partition.ledger.open_records} records open")
        passed = partition.ledger.passed_records
        if passed and sim.broker.answered[number] != partition.ledger.next_offset:
            raise ViolationError(f"partition {number}: drained, {sim.broker.answered[number]} is committed")


def check_letters(sim):
    """Each is what the record was; no good record is given up unless it was killed three times from outside."""
    for number, values in sim.broker.values.items():
        for offset, (value, headers) in sim.broker.dead_letters(number).items():
            if value.strip() != values[offset]:
                raise ViolationError(f"partition {number}: the letter of {offset} is {value[:20]}")
            if values[offset] == b"good" and sim.kills < 3:
                raise ViolationError(f"partition {number}: good record {offset} was given up: {headers}")
