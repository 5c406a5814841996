"""One run of the canary over a lab: certificates for its crowd, then ``dmpd canary --once`` as an operator would."""

import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dmpd.lab.platform import Lab

_POLL_S: Final = 0.1
CONTROL_CLIENTS: Final = 20


def issue_certificates(lab: Lab, clients: int) -> None:
    """For the crowd and its control group. Blocks for about a millisecond each."""
    names = [f"canary-{number:04}" for number in range(1, clients + CONTROL_CLIENTS + 1)]
    with lab.step(f"{len(names)} certificates of canaries"), ThreadPoolExecutor() as pool:
        for _ in pool.map(lab.authority.client, names):
            continue


def run_canary(lab: Lab, command: Sequence[str], *, stop_requested: Callable[[], bool]) -> int:
    """Run ``command``, whose output is ours, to its end; its exit code. A stop ends it early, with its report."""
    process = subprocess.Popen([*command, "--config", str(lab.folder.config)], start_new_session=True)
    ended = False
    while process.poll() is None:
        if stop_requested() and not ended:
            ended = True
            process.terminate()
        time.sleep(_POLL_S)
    return process.returncode
