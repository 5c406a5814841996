"""Fixtures that every test may ask for."""

from tests.support.services import kafka, mosquitto, postgres, postgres_server  # noqa: F401 - fixtures, found by name
