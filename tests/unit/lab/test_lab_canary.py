"""The canary over a lab is a command of its own, with the lab's configuration; its exit code is the lab's."""

import contextlib
import sys
from types import SimpleNamespace

import pytest

from dmpd.lab.canary import CONTROL_CLIENTS, issue_certificates, run_canary


def lab(tmp_path, **more):
    return SimpleNamespace(folder=SimpleNamespace(config=tmp_path / "dmpd.yaml"), **more)


def script(text):
    return [sys.executable, "-c", f"import signal, sys, time; {text}"]


@pytest.mark.parametrize("code", [0, 1, 69])
def test_the_verdict_is_the_exit_code_and_the_configuration_is_the_labs(tmp_path, code):
    command = script(f"sys.exit({code} if sys.argv[1:] == ['--config', {str(tmp_path / 'dmpd.yaml')!r}] else 70)")
    assert run_canary(lab(tmp_path), command, stop_requested=lambda: False) == code


def test_a_stop_ends_the_run_which_says_so_itself(tmp_path):
    ready = tmp_path / "ready"
    command = script(f"signal.signal(15, lambda *_: sys.exit(69)); open({str(ready)!r}, 'w').close(); time.sleep(60)")
    assert run_canary(lab(tmp_path), command, stop_requested=ready.exists) == 69


def test_there_is_a_certificate_for_everybody_and_for_the_control_group(tmp_path):
    issued = []
    authority = SimpleNamespace(client=issued.append)
    issue_certificates(lab(tmp_path, authority=authority, step=lambda _: contextlib.nullcontext()), 3)
    assert sorted(issued) == [f"canary-{number:04}" for number in range(1, 3 + CONTROL_CLIENTS + 1)]
