"""supervisord's program files of ``etc/supervisor``, as settings; and how long each daemon may take to end."""

import configparser
from typing import Final

from dmpd.canary.daemon import END_S
from dmpd.cli.config import CloudConfig
from dmpd.lab.layout import ETC
from dmpd.local_registry.engine import DRAIN_S

EDGE: Final = "local-registry"
DEADLINES_S: Final = {EDGE: DRAIN_S, "access": 5.0, "canary": END_S}
"""Of daemons whose deadline is no setting."""


def program_file(name: str) -> configparser.SectionProxy:
    """What ``etc/supervisor/NAME.conf`` says of its one program, by supervisord's own rules of reading."""
    file = configparser.RawConfigParser(inline_comment_prefixes=(";", " #"), strict=True)
    assert file.read(ETC / "supervisor" / f"{name}.conf"), f"etc/supervisor/{name}.conf is not there"
    assert file.sections() == [f"program:{name}"]
    return file[f"program:{name}"]


def deadline_s(config: CloudConfig, name: str) -> float:
    """After this time a daemon that was told to end has ended, by itself; ``name`` as on the command line."""
    if name in DEADLINES_S:
        return DEADLINES_S[name]
    section = getattr(config, name.replace("-", "_"))
    found: float = getattr(section, "stream", section).drain_timeout_s
    return found
