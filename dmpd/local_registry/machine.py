"""What the machine says of itself."""

import uuid
from pathlib import Path
from typing import Final

BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id(path: Path = BOOT_ID_FILE) -> str:
    """Names this boot of this machine. Where the kernel does not tell, each start counts as a boot (a new epoch)."""
    try:
        return path.read_text().strip()
    except OSError:
        return str(uuid.uuid4())
