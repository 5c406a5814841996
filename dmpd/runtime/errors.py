"""What clients of servers, and servers, have in common when they fail."""


class UnavailableError(Exception):
    """A server that is needed does not answer, or refuses us; the text says which and why, in one sentence."""


class BindError(Exception):
    """A server of ours cannot listen where it should; the text says where and why, in one sentence."""
