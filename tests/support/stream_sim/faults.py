"""What may go wrong at any turn. Each takes the simulation."""


def kill_a_worker(sim):
    if alive := sim.server.alive():
        sim.kills += 1
        sim.dice.choice(alive).die()


def fork_server_dies(sim):
    sim.server.is_up = False


def sink_falls_or_returns(sim):
    sim.sink_is_down = not sim.sink_is_down


def sink_is_slow_or_flaky(sim):
    sim.sink_slowness = sim.dice.choice((0, 0, 1, 5))
    sim.sink_is_flaky = sim.dice.random() < 0.3


def dead_letters_stall_or_flow(sim):
    sim.broker.dead.up = not sim.broker.dead.up


def commits_are_refused(sim):
    sim.consumer.commits_fail = sim.dice.randint(1, 3)


def client_fails(sim):
    sim.consumer.fails = True


def rebalance(sim):
    """Lose a partition, maybe to one who goes on with it, and get it back, maybe within one call."""
    number = sim.dice.choice(list(sim.broker.values))
    lost, work = sim.dice.random() < 0.4, sim.dice.randint(0, 10)

    def there_and_back():
        consumer = sim.consumer
        consumer.take_away([number], lost=lost)
        sim.broker.generation += lost
        other_works(sim, number, work)
        consumer.assign([number])

    (sim.callback_between if sim.dice.random() < 0.5 else sim.consumer.callbacks).append(there_and_back)


def freeze(sim):
    """The parent stands still, its workers do not; beyond the session's time others took its partitions over."""
    sim.frozen_turns = sim.dice.choice((4, 12))
    if sim.frozen_turns > 10:
        sim.broker.generation += 1
        for number in sim.broker.values:
            other_works(sim, number, sim.dice.randint(0, 6))

        def thaw():
            sim.consumer.take_away(list(sim.broker.values), lost=True)
            sim.consumer.assign(sim.broker.values)

        sim.consumer.callbacks.append(thaw)


def other_works(sim, number, count):
    broker = sim.broker
    at = max(broker.committed[number] or 0, broker.start[number])
    while count and at < len(broker.values[number]) and broker.values[number][at] == b"good":
        broker.durable[number].add(at)
        at, count = at + 1, count - 1
    if at > broker.start[number] and all(broker.settled(number, n) for n in range(at)):
        broker.commit({number: at})


def late_foreign_commit(sim):
    sim.broker.lower_committed(sim.dice.choice(list(sim.broker.values)), sim.dice.randint(1, 10))


def retention(sim):
    number = sim.dice.choice(list(sim.broker.values))
    at = sim.broker.start[number] + sim.dice.randint(1, 10)
    sim.broker.retention(number, min(len(sim.broker.values[number]) - 1, at))
    position, partition = sim.consumer.positions.get(number), sim.parent._partitions.get(number)
    if position is not None and partition is not None and position < (partition.next_to_place or 0):
        # What comes again (below) is there. A client that asked for what is gone and was placed long ago would be told
        # of a topic made anew, whose lower offsets are other records.
        sim.consumer.positions[number] = position = max(
            position, min(sim.broker.start[number], partition.next_to_place)
        )
    if position is not None:
        sim.consumer.held[number] = min(len(sim.broker.values[number]), position + sim.dice.randint(0, 5))


def repeats_come(sim):
    """The client goes back behind what was placed, as after a seek that it does not know the reason of."""
    for number, position in sim.consumer.positions.items():
        if position is not None:
            sim.consumer.positions[number] = max(sim.broker.start[number], position - sim.dice.randint(0, 5))


def fetching_stops_silently(sim):
    """Until it is assigned anew. Only that one: such a history takes its time."""
    if sim.dice.random() < 0.3:
        sim.consumer.stalled.add(sim.dice.choice(list(sim.broker.values)))


def ring_breaks(sim):
    if partitions := list(sim.parent._partitions.values()):
        ring = sim.dice.choice(partitions).ring
        if ring.used_bytes:
            index = ring.freed % ring.capacity_bytes
            ring._map[index : index + 8] = b"\x01" * 8


def parent_is_killed(sim):
    if sim.parent._drain is None:
        sim.die()
        sim.start()


ALL = [
    kill_a_worker,
    fork_server_dies,
    sink_falls_or_returns,
    sink_is_slow_or_flaky,
    dead_letters_stall_or_flow,
    commits_are_refused,
    client_fails,
    rebalance,
    rebalance,
    freeze,
    late_foreign_commit,
    retention,
    repeats_come,
    fetching_stops_silently,
    ring_breaks,
    parent_is_killed,
]
