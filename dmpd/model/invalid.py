"""The one error of everything that reads messages."""

from typing import Literal, get_args

InvalidReason = Literal[
    "no_key", "bad_key", "empty", "too_large", "malformed", "text", "range", "unsupported", "mismatch"
]
INVALID_REASONS: tuple[InvalidReason, ...] = get_args(InvalidReason)


class InvalidMessageError(ValueError):
    """A message that can never be used. ``reason`` is a stable word, ``detail`` a sentence for people."""

    def __init__(self, reason: InvalidReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: InvalidReason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
