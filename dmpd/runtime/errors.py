"""What all clients of servers have in common when they fail."""


class UnavailableError(Exception):
    """A server that is needed does not answer, or refuses us; the text says which and why, in one sentence."""
