"""The Cloud Registry: the feed becomes rows that people and programs query.

``gather`` sorts a batch by device session, ``sink`` writes it under the sessions' row locks with the rules of
``dmpd.model``, ``handler`` is what the stream runs, ``query`` is what everybody else asks.
"""
