"""Settings that a command writes: each into an overlay of its own beside the configuration, never into the file itself.

``/etc/dmpd/local-registry.yaml`` is the administrator's; what provisioning writes is read after it
(``/etc/dmpd/local-registry.d/*.yaml``) and can be taken away as a file.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.runtime.config import ConfigError, load


def overlay_path(config: Path, name: str) -> Path:
    """Where the overlay ``name`` of ``config`` lies; overlays are read in the order of their names."""
    return config.with_suffix(".d") / f"{name}.yaml"


def change_overlay(config: Path, name: str, changes: Mapping[str, Any], *, about: str) -> bool:
    """Add ``changes`` to the overlay ``name``, sections merged; returns whether that changed anything.

    The configuration as a whole must be good afterwards, or the overlay is what it was.

    Raises:
        ConfigError: It would not be good, or the file cannot be written.
    """
    path = overlay_path(config, name)
    before = path.read_text(encoding="utf-8") if path.exists() else None
    content = _merged(yaml.safe_load(before or "") or {}, changes)
    after = f"# {about}\n{yaml.safe_dump(content, sort_keys=False)}"
    if after == before:
        return False
    _write(path, after)
    try:
        load(config, LocalRegistrySettings)
    except ConfigError:
        remove_overlay(config, name) if before is None else _write(path, before)
        raise
    return True


def remove_overlay(config: Path, name: str) -> bool:
    """Take the overlay away; returns whether there was one."""
    path = overlay_path(config, name)
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _write(path: Path, text: str) -> None:
    """The whole file or nothing of it; readable by the daemon. Raises ``ConfigError``."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
