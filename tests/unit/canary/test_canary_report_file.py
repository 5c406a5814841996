"""A report that cannot be written is no pass, and says so; a fail stays one."""

import errno
import json
from pathlib import Path

import pytest
from msgspec import structs

from dmpd.canary.run import _write_file
from dmpd.canary.settings import CanarySettings
from tests.support.canary_reports import report_of

REPORT = report_of("r-1")


def test_it_is_written_whole(tmp_path):
    assert _write_file(CanarySettings(report_dir=str(tmp_path)), REPORT) is REPORT
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_bytes())["verdict"] == "pass"


@pytest.mark.parametrize(("before", "after"), [("pass", "unknown"), ("degraded", "unknown"), ("fail", "fail")])
def test_a_full_disk_is_said_and_makes_no_pass(tmp_path, monkeypatch, before, after):
    def full(self, data):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    found = _write_file(CanarySettings(report_dir=str(tmp_path)), structs.replace(REPORT, verdict=before))
    assert found.verdict == after
    assert found.reasons[-1].name == "report_not_written"
    assert "No space left on device" in found.reasons[-1].sentence
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named():
    found = _write_file(CanarySettings(report_dir="/nowhere/at/all"), REPORT)
    assert "/nowhere/at/all/canary-r-1.json: No such file" in found.reasons[-1].sentence
