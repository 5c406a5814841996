"""Epochs: one life of a RAE's store within one boot of its machine.

The RAE takes a new one when its store is lost, at the first connection of another boot, and when the cloud tells it
that what it sends is refused. The random part keeps a restored disk image and a cloned disk from sharing an epoch.
"""

from typing import Final

from dmpd.model import limits

RANDOM_VALUES: Final = 1 << 16
"""The random part of an epoch is drawn from ``0 .. RANDOM_VALUES - 1``."""


def next_epoch(last: int, now_ms: int, random_bits: int) -> int:
    """The epoch that follows ``last``: ``max(now_ms, last + 1 + random_bits)``.

    A clock outside ``1970 .. 2100`` counts for nothing: such an epoch would be refused, or outrank all others.

    Args:
        last: The highest epoch this RAE knows of (own, or told by ``epoch.raise``), 0 when it knows of none.
        now_ms: Wall clock, milliseconds since 1970.
        random_bits: Drawn by the caller, ``0 .. RANDOM_VALUES - 1``.

    Raises:
        ValueError: No epoch is left below 2100; ``last`` can only be damage.
    """
    if last < 0 or not 0 <= random_bits < RANDOM_VALUES:
        raise ValueError(f"epoch {last}, random part {random_bits}")
    clock_ms = now_ms if limits.EPOCH_MIN <= now_ms <= limits.EPOCH_MAX else 0
    epoch = max(clock_ms, last + 1 + random_bits)
    if epoch > limits.EPOCH_MAX:
        raise ValueError(f"no epoch left after {last}")
    return epoch


def is_raise_obeyed(own: int, *, refused: int, above: int) -> bool:
    """Whether a RAE at epoch ``own`` obeys ``epoch.raise {refused, above}``.

    Only while what was refused is its present epoch, and the epoch that outranks it is higher: a consumer that replays
    asks again and again, and the RAE must not rise once for each restart of a consumer.
    """
    return refused == own and above > own
