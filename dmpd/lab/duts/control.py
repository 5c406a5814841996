"""How the lab's commands reach its DUTs: one line of JSON each way over a unix socket in the lab's folder."""

import json
import socket
from pathlib import Path
from typing import Any, Final

from dmpd.lab.lan_tools import LanLabError

COMMANDS: Final = ("list", "sleep", "wake", "swap-mac", "swap-esn", "replace")
_TIMEOUT_S: Final = 10.0
_ANSWER_BYTES_MAX: Final = 1 << 20


def ask(path: Path, command: str, dut: str | None = None, *, esn: str | None = None) -> dict[str, Any]:
    """Do ``command`` (one of ``COMMANDS``) to a DUT and return what it is then; ``list`` returns all by name.

    ``swap-esn`` takes ``esn``, absent = the next one of the lab. Blocks for up to some seconds.

    Raises:
        LanLabError: Nobody answers, or the answer is a refusal, whose text it then is.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(json.dumps({"do": command, "dut": dut, "esn": esn}).encode() + b"\n")
            with connection.makefile("rb") as file:
                line = file.readline(_ANSWER_BYTES_MAX)
    except OSError as error:
        raise LanLabError(f"the lab's devices do not answer at {path}: {error}") from error
    answer = json.loads(line or b'{"error": "the lab\'s devices ended"}')
    if "error" in answer:
        raise LanLabError(str(answer["error"]))
    found: dict[str, Any] = answer["found"]
    return found
