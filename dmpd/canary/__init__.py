"""The canary: every few hours a flash crowd of RAEs of its own, and a verdict on how the platform took it.

Pure, with all that is decided: ``plan`` (who sends what, and when), ``history`` and ``arrivals`` (what was sent, what
came), ``rows`` (what the database must say), ``verdict``, ``schedule``. ``crowd`` is the clients' side, in processes of
its own; ``run`` leads one run; ``daemon`` starts runs in time.
"""
