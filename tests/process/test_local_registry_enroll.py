"""``dmpctl enroll`` and ``dmpctl local`` against a real daemon: from an empty router to devices, an end in order."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmpd.lab.certificates import CertificateAuthority
from dmpd.runtime.health import fetch
from tests.support.signing import sign

PROGRAM = "import sys; from dmpd.cli.{0} import main; sys.exit(main())"
LEASE = "1900000000 3c:12:aa:00:00:01 10.0.0.7 tv-one 01:3c:12:aa:00:00:01\n"
WAIT_S = 60.0


class Router:
    """A folder that is a router's /etc/dmpd and /var/lib/dmpd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "local-registry.yaml"
        self.tls = folder / "tls"
        files = {f"{name}_file": str(self.tls / file) for name, file in _FILES.items()}
        self.config.write_text(json.dumps({"state_dir": str(folder / "state"), "mqtt": files}))
        (folder / "leases").write_text(LEASE)
        self.socket = folder / "state/control.sock"

    def ctl(self, *words: str, code: int = 0, stdin: bytes = b"") -> str:
        """Run a command of dmpctl, which must end with ``code``; returns what it says."""
        command = [sys.executable, "-c", PROGRAM.format("dmpctl"), *words, "--config", str(self.config)]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=90, check=False)
        said = (done.stdout + done.stderr).decode()
        assert done.returncode == code, said
        return said

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-c", PROGRAM.format("dmpd"), "local-registry", "--config", str(self.config)]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log)
        try:
            self.wait_state("degraded")
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_state(self, state: str) -> None:
        self.until_status(lambda found: found.get("state") == state, state)

    def until_status(self, condition: Callable[[dict[str, object]], object], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not condition(found := self.status()):
            assert time.monotonic() < deadline_s, f"not {what}: {found}: {(self.folder / 'log').read_text()}"
            time.sleep(0.05)

    def status(self) -> dict[str, object]:
        try:
            return json.loads(fetch(f"unix:{self.socket}", "/status")[1])  # type: ignore[no-any-return]
        except OSError:
            return {}


_FILES = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path)


@pytest.mark.services
@pytest.mark.timeout(300)
def test_from_an_empty_router_to_devices(router: Router, mosquitto) -> None:
    with router.daemon() as daemon:
        assert "not enrolled" in router.ctl("local", "status", code=1)
        assert "0 devices" in router.ctl("local", "devices", code=1)
        broker = f"127.0.0.1:{mosquitto.port}"
        said = router.ctl("enroll", "R-enrolled", "--broker", broker, "--leases", str(router.folder / "leases"))
        assert str(router.tls / "client.csr") in said
        router.wait_state("degraded")
        said = router.ctl("local", "status", code=1)
        assert f"{router.tls / 'client.crt'} (a certificate for it with the CN R-enrolled)" in said
        certificate = sign(router.tls / "client.csr", mosquitto.authority)
        said = router.ctl("enroll", "--certificate", "-", "--ca", str(mosquitto.authority.ca_file), stdin=certificate)
        assert said.splitlines()[-1] == "ready"
        assert daemon.poll() is None, "the same process all the while"
        said = router.ctl("local", "status")
        assert "R-enrolled" in said
        assert "certificate  ends in 364 days" in said
        assert "trouble" not in said
        (router.folder / "leases").unlink()
        router.until_status(lambda found: found.get("lan_troubles"), "the lease file is missed")
        assert f"lease file {router.folder / 'leases'}: is not there" in router.ctl("local", "status")
        (router.folder / "leases").write_text(LEASE)
        said = router.ctl("local", "devices")
        assert "tv-one" in said
        assert "3c:12:aa:00:00:01" in said
        (device,) = json.loads(router.ctl("local", "devices", "--json"))
        assert device["record"]["interfaces"][0]["ip4"] == "10.0.0.7"


def test_it_is_reloaded_and_drained_over_its_socket(router: Router) -> None:
    with router.daemon() as daemon:
        before = router.status()
        assert "it has begun anew" in router.ctl("local", "reload")
        assert router.status()["started_at"] != before["started_at"]
        good = router.config.read_text()
        router.config.write_text(good.replace('"state_dir"', '"stage_dir"'))
        assert "did you mean state_dir?" in router.ctl("local", "reload", "--socket", str(router.socket), code=78)
        router.config.write_text(good)
        said = router.ctl("local", "drain")
        assert "has ended after" in said
        assert "supervisorctl start local-registry" in said
        assert daemon.wait(WAIT_S) == 0
    assert "supervisorctl start local-registry" in router.ctl("local", "status", code=69)


def test_a_certificate_that_does_not_fit_changes_nothing(router: Router, tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "pki")
    router.ctl("enroll", "R1")
    wrong = authority.client("R2").cert
    said = router.ctl("enroll", "--certificate", str(wrong), "--ca", str(authority.ca_file), code=78)
    assert "CN must be R1" in said
    assert not (router.tls / "client.crt").exists()
    assert not (router.tls / "ca.crt").exists()


def test_enrolling_needs_a_name_first(router: Router, tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "pki")
    files = ["--certificate", str(authority.client("R1").cert), "--ca", str(authority.ca_file)]
    assert "dmpctl enroll SERIAL comes first" in router.ctl("enroll", *files, code=78)
    router.ctl("enroll", code=64)
    assert "no serial of a RAE" in router.ctl("enroll", "u-somebody", code=64)


def test_a_bad_setting_is_refused_and_not_kept(router: Router) -> None:
    router.ctl("enroll", "R1", "--broker", "mqtt.example.net")
    overlay = router.folder / "local-registry.d/10-enroll.yaml"
    before = overlay.read_text()
    assert "mqtt.port: expected int" in router.ctl("enroll", "R1", "--broker", "mqtt.example.net:http", code=78)
    assert overlay.read_text() == before


def test_a_router_with_a_store_does_not_change_its_name(router: Router) -> None:
    router.ctl("enroll", "R1")
    (router.folder / "state").mkdir()
    (router.folder / "state/registry.db").touch()
    assert "this router is R1" in router.ctl("enroll", "R2", code=78)
    router.ctl("enroll", "R1", "--lan", "br-lan")
