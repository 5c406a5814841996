"""How slow this machine is just now: for the few tests whose promise is a time, on machines that do much else."""

import subprocess
import sys
import time

USUAL_S = 1.0
"""A quiet machine starts Python with access's libraries in less than this."""


def slowness() -> float:
    """1 on a quiet machine; otherwise how many times longer a start of Python takes than it should."""
    begun_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "import dmpd.cli.access"], check=True, timeout=60)
    return max(1.0, (time.monotonic() - begun_s) / USUAL_S)
