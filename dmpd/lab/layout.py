"""Where the lab finds what it does not make itself: the checkout, its ``etc`` and its cache."""

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
ETC: Final = CHECKOUT / "etc"
CACHE: Final = CHECKOUT / ".cache"
KAFKA_LIBS: Final = CACHE / "kafka" / "libs"
