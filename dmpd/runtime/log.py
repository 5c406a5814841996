"""Logs: one line a fact, on stderr, as text for people or JSON for collectors."""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import orjson

from dmpd.runtime.settings import LogSettings


def log_fields(**fields: object) -> Mapping[str, Any]:
    """For ``extra=``: facts that a reader searches for (rae, epoch, seq, partition, offset)."""
    return {"fields": fields}


def setup(settings: LogSettings, program: str) -> None:
    """Send all logging of this process to stderr in the configured form. Call once, before anything logs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(program) if settings.format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.captureWarnings(capture=True)


class TextFormatter(logging.Formatter):
    """``2026-11-25T04:02:19.123Z info dmpd.bridge: connected rae=R1 seq=7``."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        text = f"{_instant(record.created)} {record.levelname.lower()} {record.name}: {record.getMessage()}{tail}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, program, message, the fields, and the trace if there is one."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _instant(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "program": self._program,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _instant(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03}Z"
