"""Bounds of everything that crosses a border. Used by the edge before sending and by the cloud on receipt."""

from typing import Final

INT64_MAX: Final = 2**63 - 1

EPOCH_MIN: Final = 1
EPOCH_MAX: Final = 4_102_444_800_000
"""Milliseconds at 2100-01-01: an epoch beyond it can only be damage, and would outrank every honest one for ever."""

PAYLOAD_BYTES_MAX: Final = 256 * 1024
"""As it comes and with its numbers written out: ``1e308`` is 5 bytes of a message and 309 of a database's answer."""
NESTING_MAX: Final = 64

ATTRIBUTES_MAX: Final = 256
ATTRIBUTE_KEY_BYTES_MAX: Final = 128
ATTRIBUTE_VALUE_BYTES_MAX: Final = 16 * 1024
"""Likewise."""
ROW_ATTRIBUTES_MAX: Final = 1024
"""Of one device session's row, whatever changes add to it: four times what a record may have."""
ROW_ATTRIBUTES_BYTES_MAX: Final = 2 * PAYLOAD_BYTES_MAX
"""Likewise, names and values; see ``content_size``. No checkpoint can be over either bound."""
INTERFACES_MAX: Final = 32
ADDRESSES_MAX: Final = 64
"""IPv4 and IPv6 addresses of one record, over all its interfaces."""

AGE_S_MAX: Final = 10_000_000_000
"""317 years: no age that a clock can say, however wrong it is, is above it."""
DAYS_MAX: Final = 4_000_000
"""Of a certificate, before or after its end: beyond every date that a certificate can say."""

TEXT_LENGTH_MAX: Final = 1024
CODE_LENGTH_MAX: Final = 128
ESN_BYTES_MAX: Final = 2048
"""As UTF-8: an index holds it, and PostgreSQL's take no more than 2,704 bytes (CockroachDB's would)."""
ROSTER_SESSIONS_MAX: Final = 1000
DURABLE_RANGES_MAX: Final = 4096
YEAR_MIN: Final = 1900
YEAR_MAX: Final = 9998
"""Of every instant, in its own zone: a day of margin, so that no reader overflows when it converts to another zone."""
ZONE_HOURS: Final = 16
"""An instant's zone is less than this from UTC, either way: PostgreSQL refuses more."""
DECIMAL_PLACES_MAX: Final = 16_383
"""Of a number, whose exponent moves its point by no more than that: PostgreSQL keeps so many, of a zero too."""
