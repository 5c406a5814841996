"""The stream's parent, its workers and a broker in one process, with a scheduler that a seed decides.

Real: parent, rings, channels, ledgers, commits, batches, drain. Simulated: Kafka, worker processes, sink, time.
``broker`` knows what is right, ``client`` and ``workers`` behave as Kafka's client and worker processes may, ``faults``
makes them misbehave, ``history`` runs it.
"""
