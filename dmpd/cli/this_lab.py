"""The lab of this checkout, if it runs: where dmpctl looks when nobody says where else.

Only dmpctl does so: a daemon takes the configuration it is told, or the system's.
"""

from pathlib import Path

from dmpd.lab.lan_parts import RAE
from dmpd.lab.state import LabFolder
from dmpd.local_registry.store import DATABASE_NAME


def config() -> Path | None:
    """Its ``dmpd.yaml``; ``None`` = no lab runs."""
    folder = LabFolder()
    return folder.config if folder.is_locked() and folder.config.exists() else None


def stores() -> dict[str, Path]:
    """The databases of its RAEs by serial; empty = no lab runs."""
    folder = LabFolder()
    if not folder.is_locked():
        return {}
    found = {path.parent.name: path for path in sorted(folder.simulate.glob(f"*/{DATABASE_NAME}"))}
    on_lan = folder.lan / DATABASE_NAME
    return found | ({RAE: on_lan} if on_lan.exists() else {})
