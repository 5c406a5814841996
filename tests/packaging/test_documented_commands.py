"""Commands of README and docs, run as they stand; tests/tidy/test_tidy_documents.py sees that none is left out."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmpd.lab.postgresql import _programs as postgresql_programs
from tests.support import document_blocks
from tests.support.services import public_folder, unavailable
from tests.support.stream_daemon import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = document_blocks.ROOT
BIN = Path(sys.executable).parent
UP_S = 300
PATIENCE_S = 120
"""A command whose part is just coming back is said again, as a person would."""
ENDLESS = re.compile(r"^dmpctl watch|--watch\b")
"""Ended as by Ctrl-C, once they have shown something."""
FINE = {"dmpctl dead-letters list": (0, 1)}


def shell(command, folder, *, check=True, **variables):
    environment = os.environ | {"PATH": f"{BIN}:{postgresql_programs()}:{os.environ['PATH']}"} | variables
    environment.pop("DMPD_CONFIG", None)
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def test_signing_and_looking_at_a_certificate(tmp_path):
    shell(f"{ROOT}/packaging/docker/certificates.sh .", tmp_path)
    shell("openssl ecparam -name prime256v1 -genkey -noout -out k && openssl req -new -key k -subj /CN=rae-0001 "
          "-out rae-0001.csr", tmp_path)  # fmt: skip
    for block in document_blocks.of_kind("signing"):
        for command in block.commands:
            done = shell(command, tmp_path)
    assert "will not expire" in done.stdout


def test_the_first_look_has_certificates_that_fit(tmp_path):
    (tmp_path / "packaging/docker").mkdir(parents=True)
    shutil.copy(ROOT / "packaging/docker/certificates.sh", tmp_path / "packaging/docker")
    (block,) = document_blocks.of_kind("certificates")
    for _ in range(2):  # what is there is kept
        for command in block.commands:
            shell(command, tmp_path)
        tls = tmp_path / "packaging/docker/tls"
        made = {path.name: path.read_bytes() for path in tls.iterdir()}
    assert made == {path.name: path.read_bytes() for path in tls.iterdir()}
    for name in ("mosquitto", "svc-bridge", "rae-0001"):
        shell(f"openssl verify -CAfile ca.crt {name}.crt", tls)
    said = shell("openssl x509 -in mosquitto.crt -noout -ext subjectAltName", tls).stdout
    assert "DNS:mqtt.example.net" in said


@pytest.fixture(scope="module")
def lab():
    """A lab in the place where the documents' commands look for one; its variables."""
    with public_folder() as root:
        variables = {"TMPDIR": str(root)}
        with (root / "up.log").open("w") as log:
            process = subprocess.Popen(
                [BIN / "dmpd", "lab", "up", "--raes", "2", "--devices", "3"],
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for(
                lambda: process.poll() is not None or running(root, variables),
                (root / "up.log").read_text,
                timeout_s=UP_S,
            )
            if process.poll() is not None:
                unavailable((root / "up.log").read_text())
            yield root, variables
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


def running(root, variables):
    done = shell("dmpd lab status", root, check=False, **variables)
    return done.returncode == 0


def say(command, root, variables):
    """Until it ends well: a part that was just killed or reloaded is not back at once."""
    fine, deadline_s = FINE.get(command, (0,)), time.monotonic() + PATIENCE_S
    while (done := shell(command, root, check=False, **variables)).returncode not in fine:
        assert time.monotonic() < deadline_s, f"{command}\n{done.stdout}{done.stderr}"
        time.sleep(0.5)
    return done


def test_the_commands_of_a_lab(lab):
    root, variables = lab
    blocks = sorted(document_blocks.of_kind("lab"), key=lambda block: "dmpd lab down" in block.text)
    assert len(blocks) >= 3
    if os.geteuid() == 0:
        blocks[-1:-1] = document_blocks.of_kind("lan")
    session = say("dmpctl devices --json", root, variables).stdout.partition('"session":"')[2][:36]
    database(root, variables)
    for block in blocks:
        for command in block.commands:
            if command.startswith(". "):
                assert command == ". .venv/bin/activate"  # our PATH does that
            elif ENDLESS.search(command):
                done = shell(f"timeout -s INT 15 {command}", root, check=False, **variables)
                assert done.stdout, f"{command}\n{done.stderr}"
            else:
                say(command.replace("SESSION", session).replace("SERIAL", "sim-0001"), root, variables)


def database(root, variables):
    """A backup of the running lab's database."""
    found = shell("dmpd lab status --json", root, **variables).stdout
    assert found
    (socket,) = root.glob("*/postgresql/socket")
    for block in document_blocks.of_kind("lab-database"):
        for command in block.commands:
            done = shell(command, root, CONNINFO=f"host={socket} dbname=dmpd user=dmpd", **variables)
    assert "device_session" in done.stdout
