"""``dmpd local-registry`` as the supervisor sees it: states, exit codes, one instance, an end within its time."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmpd.lab.certificates import CertificateAuthority
from dmpd.local_registry.identity_file import IDENTITY_NAME
from dmpd.local_registry.store import DATABASE_NAME, read_devices
from dmpd.runtime.health import fetch

COMMAND = [sys.executable, "-c", "import sys; from dmpd.cli.dmpd import main; sys.exit(main())", "local-registry"]
LEASE = "1900000000 3c:12:aa:00:00:01 10.0.0.7 tv-one 01:3c:12:aa:00:00:01\n"


def write_config(folder: Path, **more: object) -> Path:
    files = CertificateAuthority(folder).client("R1")
    content: dict[str, object] = {
        "rae": "R1",
        "state_dir": str(folder / "state"),
        "lan": {"lease_file": str(folder / "leases")},
        "mqtt": {"port": 1, "ca_file": str(files.ca), "cert_file": str(files.cert), "key_file": str(files.key)},
        **more,
    }
    path = folder / "local-registry.yaml"
    path.write_text(json.dumps(content))
    return path


def status(folder: Path) -> dict[str, Any]:
    try:
        return json.loads(fetch(f"unix:{folder / 'state' / 'control.sock'}", "/status")[1])  # type: ignore[no-any-return]
    except OSError:
        return {}


def wait_for(folder: Path, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 20.0) -> dict[str, Any]:
    deadline_s = time.monotonic() + timeout_s
    while not ((found := status(folder)) and condition(found)):
        assert time.monotonic() < deadline_s, found
        time.sleep(0.05)
    return found


def ctl(config: Path, *words: str) -> tuple[int, str]:
    """``dmpctl local …`` on this router: its exit code, and what it says."""
    command = [sys.executable, "-c", "import sys; from dmpd.cli.dmpctl import main; sys.exit(main())", "local", *words]
    done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def daemon(config: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*COMMAND, "--config", str(config)], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_without_a_broker_it_is_degraded_keeps_devices_and_ends_well(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text(LEASE)
    config = write_config(tmp_path)
    with daemon(config) as process:
        found = wait_for(tmp_path, lambda found: found["state"] == "degraded" and found["committed"] == 1)
        assert found["connected"] is False
        assert "uplink" in found["reason"]
        mode = (tmp_path / "state" / "control.sock").stat().st_mode & 0o777
        assert mode == 0o660
        code, said = ctl(config, "status")
        assert code == 1
        assert re.search(r"^state +degraded: R1: uplink: .*Connect call failed", said, re.MULTILINE), (
            said
        )  # docs/rae.md
        assert re.search(r"^uplink +not connected$", said, re.MULTILINE), said
        assert "tv-one" in ctl(config, "devices")[1]
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - began_s < 15
    (device,) = read_devices(tmp_path / "state" / DATABASE_NAME)
    assert device.record.interfaces[0].hostname == "tv-one"
    with daemon(config) as process:
        wait_for(tmp_path, lambda found: found["committed"] >= 1 and found["outbox_rows"] >= 1)
        code, said = ctl(config, "drain")
        assert (code, process.wait(20)) == (0, 0), said
    assert [one.session for one in read_devices(tmp_path / "state" / DATABASE_NAME)] == [device.session]


def test_second_instance_is_refused_and_the_first_is_left_alone(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with daemon(config) as first:
        wait_for(tmp_path, lambda found: found["state"] == "degraded")
        second = subprocess.run(
            [*COMMAND, "--config", str(config)], capture_output=True, text=True, timeout=20, check=False
        )
        assert second.returncode == 70
        assert str(first.pid) in second.stderr
        assert first.poll() is None
        assert status(tmp_path)["state"] == "degraded"


def test_wrong_configuration_is_said_with_its_line_and_ends_with_78(tmp_path: Path) -> None:
    config = write_config(tmp_path, checkpoint_interval_s="often")
    environment = {name: value for name, value in os.environ.items() if name != "SUPERVISOR_ENABLED"}
    done = subprocess.run(
        [*COMMAND, "--config", str(config)], capture_output=True, text=True, timeout=20, check=False, env=environment
    )
    assert done.returncode == 78
    assert "checkpoint_interval_s" in done.stderr
    assert "local-registry.yaml:1" in done.stderr


def test_name_that_is_no_rae_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path, rae="u-somebody")
    done = subprocess.run([*COMMAND, "--config", str(config)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 78
    assert "u-somebody" in done.stderr


def test_damaged_store_costs_an_epoch_and_not_the_session(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text(LEASE)
    config = write_config(tmp_path)
    with daemon(config):
        first = wait_for(tmp_path, lambda found: found["committed"] == 1)
        (before,) = read_devices(tmp_path / "state" / DATABASE_NAME)
        identities = tmp_path / "state" / IDENTITY_NAME  # written after the commit, and the daemon is killed next
        wait_for(tmp_path, lambda _: identities.exists() and before.session in identities.read_text())
    for path in (tmp_path / "state").glob("registry.db-*"):
        path.unlink()
    (tmp_path / "state" / DATABASE_NAME).write_bytes(b"\x00garbage" * 5000)
    with daemon(config):
        second = wait_for(tmp_path, lambda found: found["committed"] >= 1)
    assert second["epoch"] > first["epoch"]
    (after,) = read_devices(tmp_path / "state" / DATABASE_NAME)
    assert after.session == before.session
