"""The lab of this checkout, if it runs: where dmpctl looks when nobody says where else.

Only dmpctl does so: a daemon takes the configuration it is told, or the system's.
"""

from pathlib import Path

from dmpd.lab.lan_parts import RAE
from dmpd.lab.state import LabFolder, serial
from dmpd.local_registry.store import DATABASE_NAME


def config() -> Path | None:
    """Its ``dmpd.yaml``; ``None`` = no lab runs."""
    folder = LabFolder()
    return folder.config if folder.is_locked() and folder.config.exists() else None


def stores() -> dict[str, Path]:
    """The databases that its RAEs must have, by serial; empty = no lab runs."""
    folder = LabFolder()
    return stores_of(folder) if folder.is_locked() else {}


def stores_of(folder: LabFolder) -> dict[str, Path]:
    """The database that every RAE of the lab in ``folder`` must have, by serial, whether it is there or not."""
    info = folder.read_info()
    if info is None:
        return {}
    serials = [serial(number) for number in range(1, info.raes + 1)]
    found = {one: folder.simulate / one / DATABASE_NAME for one in serials}
    return found | ({RAE: folder.lan / DATABASE_NAME} if info.lan else {})
