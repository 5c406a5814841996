"""Whose a record is, for the limit of dead letters per source."""


def source_of(key: bytes | None) -> bytes:
    """The RAE that a record's key, an MQTT topic, names; a key of another form is its own source."""
    levels = (key or b"").split(b"/", 3)
    return levels[2] if len(levels) == 4 and levels[:2] == [b"dmp", b"v1"] else key or b""
