"""Commands of README and docs, run as they stand; tests/tidy/test_tidy_documents.py sees that none is left out."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from dmpd.canary.settings import CanarySettings
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
FINE = {"dmpctl dead-letters list": (0, 1), "dmpctl access list --user u-team1 --at": (0, 1)}
"""By how a command begins: it may also say that there is nothing."""


def environment(variables):
    found = os.environ | {"PATH": f"{BIN}:{postgresql_programs()}:{os.environ['PATH']}"} | variables
    found.pop("DMPD_CONFIG", None)
    return found


def shell(command, folder, *, check=True, **variables):
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def shown_until_interrupted(command, folder, variables):
    """The beginning of what an endless command shows; then Ctrl-C, at which it must end well."""
    heeding = ["env", "--default-signal=INT"]  # which whoever began the tests in the background has ignored
    process = subprocess.Popen(
        [*heeding, "bash", "-c", f"exec {command}"], cwd=folder, env=environment(variables), stdout=subprocess.PIPE
    )
    patience = threading.Timer(PATIENCE_S, process.kill)
    patience.start()
    try:
        said = process.stdout.read1()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    finally:
        patience.cancel()
        process.kill()
    assert process.returncode == 0, f"{command}: {process.returncode}"
    return said


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
    made = []
    for _ in range(2):  # what is there is kept
        for command in block.commands:
            shell(command, tmp_path)
        tls = tmp_path / "packaging/docker/tls"
        made.append({path: path.read_bytes() for path in tls.rglob("*") if path.is_file()})
    assert made[0] == made[1]
    compose = yaml.safe_load((ROOT / "packaging/docker/compose.yaml").read_text())["services"]["canary"]
    crowd = int(compose["environment"]["DMPD__CANARY__CLIENTS"].rpartition("-")[2].rstrip("}"))
    assert len(list((tls / "canary").glob("canary-*.crt"))) == crowd + CanarySettings().control_clients
    for name in ("mosquitto", "svc-bridge", "svc-access", "svc-canary", "canary/canary-0001", "rae-0001"):
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
    fine = next((codes for beginning, codes in FINE.items() if command.startswith(beginning)), (0,))
    deadline_s = time.monotonic() + PATIENCE_S
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
    shell("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout k -subj /CN=rae-0001 "
          "-out client.csr", root)  # fmt: skip
    session = say("dmpctl devices --rae sim-0001 --json", root, variables).stdout.partition('"session":"')[2][:36]
    here = {"SESSION": session, "SERIAL": "sim-0001", "rae-0001": "sim-0001", "rae-0002": "sim-0002"}
    here |= {"7b0a36d2-6c1f-4c3f-9c30-0b1f7f7a2f10": session}
    database(root, variables)
    for block in blocks:
        for written in block.commands:
            command = re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], written)
            if command.startswith(". "):
                assert command == ". .venv/bin/activate"  # our PATH does that
            elif ENDLESS.search(command):
                assert shown_until_interrupted(command, root, variables), command
            else:
                say(command, root, variables)
            if command.startswith("dmpctl access grant u-team2"):
                grants = say("dmpctl access list --user u-team2 --json", root, variables).stdout
                here["3f9c"] = json.loads(grants)[0]["id"]


def database(root, variables):
    """A backup of the running lab's database, and its restoring elsewhere, the second time over what is there."""
    assert shell("dmpd lab status --json", root, **variables).stdout
    (socket,) = root.glob("*/postgresql/socket")
    place = f"host={socket} user=dmpd dbname="
    for block in document_blocks.of_kind("lab-database"):
        for command in block.commands:
            done = shell(command, root, CONNINFO=f"{place}dmpd", **variables)
    assert "device_session" in done.stdout
    shell(f"createdb -h {socket} -U dmpd restored", root, **variables)
    (block,) = document_blocks.of_kind("lab-restore")
    for _ in range(2):
        for command in block.commands:
            shell(command, root, CONNINFO=f"{place}restored", **variables)
        rows = shell(f"psql -Atc 'SELECT count(*) FROM device_session' '{place}restored'", root, **variables).stdout
        assert int(rows) > 0
