"""What a batch takes while it becomes rows: no more than ``dmpd.stream.memory`` reckons when it sizes an instance."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dmpd.cloud_registry.daemon import worker_argument
from dmpd.cloud_registry.migrate import migrate
from dmpd.cloud_registry.settings import CloudRegistrySettings
from dmpd.runtime.database import connect
from dmpd.stream import memory
from dmpd.stream.memory import Sizes
from dmpd.stream.settings import MEBIBYTE

pytestmark = pytest.mark.services
ROOT = Path(__file__).resolve().parents[2]
TURNS = 3
"""A worker's memory grows until then."""


@pytest.mark.parametrize(("records", "value_bytes"), [(1000, 60), (5000, 60), (3500, 2000)])
def test_a_batch_takes_no_more_than_is_reckoned(postgres, records, value_bytes):
    with connect(postgres, application="test") as connection:
        migrate(connection)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.batch_memory", str(records), str(value_bytes), str(TURNS)],
        input=worker_argument(CloudRegistrySettings(), postgres, cmd_topic="dmp.cmd"),
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    reckoned = memory.WORKER_BYTES + Sizes(0, records, found["bytes"]).cost_bytes
    peak, batch = found["peak_bytes"] / MEBIBYTE, found["bytes"] / MEBIBYTE
    print(f"worker: {peak:.0f} MiB at most, {reckoned / MEBIBYTE:.0f} reckoned, {records} records of {batch:.1f} MiB")
    assert found["peak_bytes"] <= reckoned
    assert found["peak_bytes"] > reckoned / 4, "else instances are sized for what nobody needs"
