"""What a running lab is like right now, as plain data: for ``dmpd lab status`` and for scripts."""

import json
from typing import Any

from msgspec import structs

from dmpd.lab import daemon_config
from dmpd.lab.lan_parts import LanParts
from dmpd.lab.state import LabFolder
from dmpd.lab.supervision import Supervisor
from dmpd.runtime import health


def lab_status(folder: LabFolder) -> dict[str, Any]:
    """Everything the lab and its daemons say of themselves. Blocks for up to some seconds when one hangs."""
    info = folder.read_info()
    if info is None or not folder.is_locked():
        return {"running": False}
    parts = [structs.asdict(part) for part in Supervisor(folder).states()]
    binds = {
        "bridge": daemon_config.bridge_health(folder),
        "cloud-registry": daemon_config.cloud_registry_health(folder),
        "access": daemon_config.access_health(folder),
        **({"simulate": daemon_config.simulate_health(folder)} if info.raes else {}),
        **({"local-registry-lan": LanParts(folder).health} if info.lan else {}),
    }
    return {
        "running": True,
        **structs.asdict(info),
        "parts": parts,
        "folder": str(folder.root),
        "health": {name: daemon_status(bind) for name, bind in binds.items()},
    }


def daemon_status(bind: str) -> dict[str, Any]:
    """``/status`` of one daemon; empty when it does not answer."""
    try:
        code, body = health.fetch(bind, "/status")
    except OSError:
        return {}
    found = json.loads(body) if code == 200 else {}
    return found if isinstance(found, dict) else {}
