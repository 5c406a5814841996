"""Requests as people and programs make them: ``dmpctl request`` against a lab, and the README's blocks as they are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import document_blocks
from tests.support.platform import BIN, LabUnderTest, running_lab, until

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lab():
    with running_lab("--raes", "2", "--devices", "2", "--no-lan") as one:
        until(lambda: len(sessions(one)) == 2, "rows of the first RAE", 60)
        yield one


def sessions(lab: LabUnderTest) -> list[str]:
    done = lab.ctl("devices", "--rae", "sim-0001", "--json")
    return [one["session"] for one in json.loads(done.stdout)] if done.returncode == 0 else []


def test_dmpctl_asks_a_rae_and_a_device_and_its_exit_code_is_the_outcome(lab):
    pinged = lab.ctl("request", "--rae", "sim-0001", "ping", "--as", "op-eve", "--id", "ping-1")
    assert (pinged.returncode, pinged.stdout[:6]) == (0, "done: "), pinged.stderr
    progress = [line.split("ms  ")[1] for line in pinged.stderr.splitlines() if not line.endswith("waiting")]
    assert progress == ["ping to sim-0001 as op-eve, id ping-1: in Kafka", "accepted", "done"]
    session = sessions(lab)[0]
    launched = lab.ctl("request", session, "app.launch", "app=Netflix", "--json")
    assert json.loads(launched.stdout)["result"] == {"app": "Netflix", "state": "running"}
    failed = lab.ctl("request", session[:13], "app.stop", "app=Nope")
    assert (failed.returncode, failed.stdout) == (3, "failed: the device has no app Nope\n"), failed.stderr
    refused = lab.ctl("request", "--rae", "sim-0001", "merge")
    assert (refused.returncode, refused.stdout) == (4, "refused: merge does not exist yet\n")
    expired = lab.ctl("request", "--rae", "sim-0999", "ping", "--timeout", "2")
    assert (expired.returncode, expired.stdout[:9]) == (5, "expired: ")
    nobody = lab.ctl("request", "00000000-0000-4000-8000-000000000000", "wake")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "no device session" in nobody.stderr
    set_ = lab.ctl("request", session, "attributes.set", 'set={"bench":"x7"}')
    assert (set_.returncode, set_.stdout) == (0, "done\n")
    until(lambda: '"x7"' in lab.ctl("device", session, "--json").stdout, "the attribute is in the database")


def readme_blocks() -> tuple[str, str]:
    text = (ROOT / "README.md").read_text()
    section = text.partition("## Ask devices for something")[2].partition("\n## ")[0]
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (commands,) = document_blocks.of_kind("tests/integration/test_platform_requests.py")
    return program, commands.text


def test_a_plain_mqtt_client_asks_as_the_readme_tells(lab, tmp_path):
    program, commands = readme_blocks()
    (tmp_path / "ask.py").write_text(program)
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "DMPD_CONFIG": str(lab.folder.config),
    }
    commands = commands.replace("dmpd lab env", f"dmpd lab --state {lab.folder.root} env")
    commands = commands.replace("sleep 1", "sleep 5")  # for a machine that does much else
    commands = commands.replace("python3 ask.py", f"{sys.executable} ask.py")
    done = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[0] == "accepted None None"
    assert lines[1] == "done {'app': 'Netflix', 'state': 'running'} None"
    answers = [json.loads(line) for line in lines[2:]]
    assert [one["outcome"] for one in answers] == ["accepted", "done"], answers
    assert answers[1]["result"] == {"app": "Netflix", "state": "stopped", "ran": True}
