"""``dmpctl rae wait``: what a RAE lacks until it counts as arrived, and what is said of it."""

import json
from datetime import UTC, datetime

import pytest
import yaml
from msgspec.structs import replace

from dmpd.cli import dmpctl
from dmpd.cli.ctl_rae import lacking
from dmpd.cloud_registry.query import Rae
from dmpd.model.messages import Status
from tests.support.messages import AT, EPOCH
from tests.support.rows import OutputTwin, make_handler, migrated, record_of

STATUS = Status(v=1, rae="R1", session="rae", at=AT, epoch=EPOCH, state="ready", run=1, seq_high=0)
ARRIVED = Rae(
    rae="R1", reachable=True, state="ready", heard_at=AT, silence_s=0.0, devices=0, online=0, stale=0, status=STATUS
)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "nothing was heard of it yet"),
        (replace(ARRIVED, status=None), "no status"),
        (replace(ARRIVED, reachable=False, state="lost"), "its last word was lost"),
        (replace(ARRIVED, state="draining"), "it is draining"),
    ],
)
def test_what_is_lacking_is_said(found, told):
    assert told in lacking(found)


def test_a_ready_and_reachable_one_lacks_nothing():
    assert lacking(ARRIVED) is None


@pytest.mark.services
def test_wait_ends_when_it_arrives_and_when_it_does_not(postgres, tmp_path, capsys):
    config = tmp_path / "dmpd.yaml"
    config.write_text(yaml.safe_dump({"database": {"conninfo": postgres.conninfo}}))

    def wait(*more):
        code = dmpctl.main(["rae", "wait", "R1", "--timeout", "0", "--config", str(config), *more])
        return code, capsys.readouterr()

    with migrated(postgres):
        code, said = wait()
        assert (code, "nothing was heard of it yet" in said.err) == (1, True)
        handler = make_handler(postgres)
        now = datetime.now(UTC)
        heard = now.strftime("%Y-%m-%dT%H:%M:%S.000Z").encode()
        handler.handle([record_of(replace(STATUS, at=now), 0, (("mqtt-received-at", heard),))], OutputTwin())
        handler.close()
        code, said = wait("--json")
        assert (code, json.loads(said.out)["lacks"]) == (0, None)
        assert wait()[1].out.startswith("R1: ready, 0 devices, heard ")
