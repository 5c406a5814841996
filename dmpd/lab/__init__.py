"""The whole platform on one machine: servers, daemons, certificates and faults, for a demo, a test bed and load.

Every server is described by one class (``Mosquitto``, ``Kafka``, ``PostgreSQL``) that writes its configuration into a
folder and says how it is started; who starts it, supervisord in the lab or ``ServerProcess`` in a test, is not its
business.
"""
