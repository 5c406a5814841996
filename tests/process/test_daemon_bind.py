"""A daemon whose health server cannot listen says so in a sentence, and supervisord may start it again."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dmpd.runtime import exit_codes


@pytest.mark.parametrize("program", ["bridge", "cloud-registry"])
def test_where_another_listens_is_a_sentence(tmp_path, program):
    config = tmp_path / "dmpd.yaml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        config.write_text(yaml.safe_dump({program.replace("-", "_"): {"health_bind": bind}}))
        command = [Path(sys.executable).with_name("dmpd"), program, "--config", config]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == exit_codes.INTERNAL
    assert f"dmpd {program}: cannot listen at {bind}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
