"""Ordered, partition-parallel processing of a Kafka topic with back-pressure; knows nothing of devices.

The parent process owns Kafka; one worker process per assigned partition owns the handler; between them a bounded ring
in shared memory. A user writes a ``Handler`` (see ``handler``) and gives it, with ``StreamSettings``, to ``run``.
"""
