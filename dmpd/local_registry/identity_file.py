"""``identity.json`` beside the database: which evidence belongs to which session, for the day the database is lost."""

import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from dmpd.local_registry.identity import IdentityFile
from dmpd.model.limits import EPOCH_MAX

IDENTITY_NAME: Final = "identity.json"

_log = logging.getLogger(__name__)


def read(state_dir: Path) -> IdentityFile:
    """What the file says; empty when it is absent, or damaged (which is logged: new session ids are the price)."""
    path = state_dir / IDENTITY_NAME
    try:
        content = msgspec.json.decode(path.read_bytes(), type=IdentityFile)
    except FileNotFoundError:
        return IdentityFile()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.error("%s cannot be used, devices get new session ids if the database is lost too: %s", path, error)
        return IdentityFile()
    if not 0 <= content.epoch < EPOCH_MAX:
        _log.error("%s: epoch %d can only be damage", path, content.epoch)
        content.epoch = 0
    return content


def write(state_dir: Path, content: IdentityFile) -> None:
    """Replace the file atomically and durably. Blocks for the disk.

    Raises:
        OSError: The old file stands.
    """
    path = state_dir / IDENTITY_NAME
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(content))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
