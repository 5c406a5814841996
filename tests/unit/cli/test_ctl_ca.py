"""``dmpctl access ca``: what it makes, what it refuses with which words, and what it says of ends that come near."""

import json
import shlex
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from dmpd.cli import ca_listing, dmpctl
from dmpd.lab.certificates import CertificateAuthority
from dmpd.local_registry import credentials
from dmpd.model.certificates import CertificateKind
from dmpd.runtime import exit_codes
from dmpd.runtime.authority import Authority
from dmpd.runtime.settings import MqttSettings
from tests.support import document_blocks, documented

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """What ``dmpd access`` is asked for, by way of a database that there is not."""
    found = []
    monkeypatch.setattr("dmpd.cli.ca_revocation.end_connection", lambda _, name, **__: found.append(("end", name)))
    monkeypatch.setattr("dmpd.cli.ca_issuing.make_known", lambda _, name: found.append(("know", name)))
    return found


@pytest.fixture
def folder(tmp_path):
    Authority.create(tmp_path / "ca", name="test CA", now=NOW, durable=False)
    return tmp_path / "ca"


@pytest.fixture
def ca(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("DMPD_CONFIG", str(tmp_path / "none.yaml"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: dmpctl.main(["access", "ca", *map(str, words), "--folder", str(folder)])


def configured(tmp_path, folder, *lines):
    config = tmp_path / "dmpd.yaml"
    config.write_text("\n  ".join([f"ca:\n  folder: {folder}", *lines]) + "\n")
    return lambda *words: dmpctl.main(["access", "ca", *map(str, words), "--config", str(config)])


def request(tmp_path, name):
    settings = MqttSettings(
        ca_file=str(tmp_path / "r/ca.crt"), cert_file=str(tmp_path / "r/client.crt"), key_file=str(tmp_path / "r/k.key")
    )
    return credentials.make_request(name, settings, renew=False)


def test_init_says_what_each_file_is_for_and_works_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DMPD_CONFIG", str(tmp_path / "none.yaml"))
    words = ["access", "ca", "init", "--folder", str(tmp_path / "new"), "--name", "Lab 7"]
    assert dmpctl.main(words) == exit_codes.OK
    said = capsys.readouterr().out
    assert all(word in said for word in ("Lab 7", "ca.crt", "crl.pem", "ca.key"))
    assert dmpctl.main(words) == exit_codes.CONFIG
    assert "holds a CA already" in capsys.readouterr().err


def test_a_request_of_enroll_is_signed_and_fits_the_router(ca, folder, tmp_path, capsys):
    asked = request(tmp_path, "rae-1")
    assert ca("sign", asked) == exit_codes.OK
    assert "rae rae-1, serial" in capsys.readouterr().out
    credentials.check("rae-1", certificate=asked.with_suffix(".crt"), ca=folder / "ca.crt")


@pytest.mark.parametrize("days", [None, 30])
def test_how_long_each_kind_is_good_is_what_the_guide_says(ca, folder, tmp_path, days):
    """Or as long as ``--days`` says."""
    words = () if days is None else ("--days", days)
    assert ca("sign", request(tmp_path, "rae-1"), *words) == exit_codes.OK
    assert ca("issue", "u-team1", "svc-bridge", *words) == exit_codes.OK
    assert ca("issue", "canary", "--count", 1, *words) == exit_codes.OK
    assert ca("issue", "server", "--host", "x", *words) == exit_codes.OK
    good = {one.kind.value: round((one.not_after - NOW) / timedelta(days=1)) for one in Authority.open(folder).issued()}
    guide = " ".join((document_blocks.ROOT / "docs/operations.md").read_text().split())
    said = "good for {rae} days (RAEs, the broker), {service} (services, canary) or {user} (users)".format_map(good)
    assert (said in guide) == (days is None)
    assert (good["rae"], good["service"]) == (good["server"], good["canary"])
    assert days is None or set(good.values()) == {days}


def test_a_request_on_stdin_is_answered_on_stdout(ca, tmp_path, capsys, monkeypatch):
    with request(tmp_path, "rae-1").open() as asked:
        monkeypatch.setattr(sys, "stdin", asked)
        assert ca("sign", "-") == exit_codes.OK
    assert capsys.readouterr().out.startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("u-team1", (), "'u-team1' is the name of a user, and this is to be a certificate of a RAE"),
        ("rae-1", ("--kind", "user"), "'rae-1' is the name of a RAE, and this is to be a certificate of a user"),
        ("admin", (), "'admin' is nobody's name"),
        ("op-anna", (), "no certificate is for op-"),
    ],
)
def test_a_name_of_the_wrong_form_is_not_signed(ca, folder, tmp_path, capsys, name, words, told):
    assert ca("sign", request(tmp_path, name), *words) == exit_codes.USAGE
    assert told in capsys.readouterr().err
    assert Authority.open(folder).issued() == []


def test_a_users_key_is_for_its_owner_alone(ca, tmp_path):
    assert ca("issue", "u-team1", "u-team1.watch", "--out", tmp_path / "out") == exit_codes.OK
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes["u-team1.key"] == modes["u-team1.watch.key"] == 0o600
    assert modes["u-team1.crt"] == 0o644


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("team1",), "'team1' is the name of a RAE, whose key should never leave it"),
        (("team1", "--kind", "user"), "'team1' is the name of a RAE, and this is to be a certificate of a user"),
        (("u-ok", "admin"), "'admin' is nobody's name"),
        (("u-ok", "svc-else"), "there are svc-access, svc-bridge, svc-canary"),
        (("canary",), "expected: issue canary --count N"),
        (("server",), "expected: issue server --host NAME"),
        (("u-ok", "--host", "x"), "--host goes with: issue server"),
    ],
)
def test_what_cannot_be_issued_is_said_and_nothing_is_made(ca, folder, tmp_path, capsys, words, told):
    assert ca("issue", *words, "--out", tmp_path / "out") == exit_codes.USAGE
    assert told in capsys.readouterr().err
    assert Authority.open(folder).issued() == []
    assert not (tmp_path / "out").exists()


def test_no_key_is_written_over(ca, tmp_path, capsys):
    assert ca("issue", "u-team1") == exit_codes.OK
    before = (tmp_path / "u-team1.key").read_bytes()
    assert ca("issue", "u-other", "u-team1") == exit_codes.CONFIG
    assert "holds files of u-team1 already" in capsys.readouterr().err
    assert (tmp_path / "u-team1.key").read_bytes() == before
    assert not (tmp_path / "u-other.key").exists()


def test_the_canarys_many_are_made_once(ca, folder, tmp_path, capsys):
    assert ca("issue", "canary", "--count", 30, "--out", tmp_path / "c") == exit_codes.OK
    assert "30 certificates made" in capsys.readouterr().out
    first = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    assert ca("issue", "canary", "--count", 32, "--out", tmp_path / "c") == exit_codes.OK
    assert "2 certificates made" in capsys.readouterr().out
    assert {name: (tmp_path / "c" / name).read_bytes() for name in first} == first
    assert {one.kind for one in Authority.open(folder).issued()} == {CertificateKind.CANARY}


def test_a_revocation_that_nobody_was_told_of_is_no_success(ca, folder, tmp_path, capsys):
    ca("issue", "u-team1")
    assert ca("revoke", "u-team1") == exit_codes.FAILED
    assert f"give it {folder}/crl.pem as crlfile, and a HUP" in capsys.readouterr().err
    found = Authority.open(folder).issued("u-team1")
    assert [one.revoked_at is not None for one in found] == [True]
    told = configured(tmp_path, folder, f"crl_file: {tmp_path}/broker.pem")
    assert told("revoke", "u-team1") == exit_codes.FAILED
    assert "send it a HUP (ca.reload_command does)" in capsys.readouterr().err
    assert (tmp_path / "broker.pem").read_bytes() == (folder / "crl.pem").read_bytes()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("[sh, -c, 'echo broken >&2; exit 5']", "exit code 5: broken"),
        ("[no-such-program]", "no-such-program: No such file"),
        ("[sleep, '60']", "not done within 0.2 s"),
    ],
)
def test_a_reload_that_fails_is_told_with_its_words(tmp_path, folder, capsys, command, told):
    lines = (f"crl_file: {tmp_path}/broker.pem", f"reload_command: {command}", "reload_timeout_s: 0.2")
    ca = configured(tmp_path, folder, *lines)
    ca("issue", "u-team1", "--out", tmp_path)
    assert ca("revoke", "u-team1") == exit_codes.FAILED
    assert told in capsys.readouterr().err


def test_the_broker_is_told_by_the_command_once_the_list_is_in_place(tmp_path, folder, capsys, asked):
    command = f"reload_command: [cp, '{tmp_path}/broker.pem', '{tmp_path}/seen.pem']"
    ca = configured(tmp_path, folder, f"crl_file: {tmp_path}/broker.pem", command)
    ca("issue", "u-team1", "--out", tmp_path)
    assert ca("revoke", "u-team1") == exit_codes.OK
    assert (tmp_path / "seen.pem").read_bytes() == (folder / "crl.pem").read_bytes()
    assert asked == [("know", "u-team1"), ("end", "u-team1")]
    assert stat.S_IMODE((tmp_path / "broker.pem").stat().st_mode) == 0o644
    assert ca("certificates") == exit_codes.OK
    assert "1 more have ended, were revoked or renewed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("u-nobody",), exit_codes.DIFFERENT),
        (("--serial", "abc"), exit_codes.DIFFERENT),
        (("--serial", "xyz"), exit_codes.USAGE),
        ((), exit_codes.USAGE),
        (("u-team1", "--serial", "1"), exit_codes.USAGE),
        (("--certificate", "nothing.crt"), exit_codes.CONFIG),
    ],
)
def test_what_is_not_there_is_not_revoked(ca, folder, words, code):
    before = (folder / "crl.pem").read_bytes()
    try:
        assert ca("revoke", *words) == code
    except SystemExit as end:
        assert end.code == code  # noqa: PT017 - argparse's own way out
    assert (folder / "crl.pem").read_bytes() == before


def test_a_certificate_is_revoked_by_its_file_too(ca, folder, tmp_path):
    ca("issue", "u-team1")
    for file in (folder / "issued").iterdir():
        file.unlink()
    assert ca("revoke", "--certificate", "u-team1.crt") == exit_codes.FAILED
    assert len(list(Authority.open(folder)._list())) == 1


def test_what_ends_soon_is_said_in_time_and_what_was_renewed_is_not(ca, folder, capsys):
    authority = Authority.open(folder, durable=False)
    authority.issue("rae-1", CertificateKind.RAE, now=NOW, days=10)
    authority.issue("u-team1", CertificateKind.USER, now=NOW)
    assert ca("certificates", "--json") == exit_codes.DIFFERENT
    states = {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)}
    assert states == {"the CA": "good", "the list": "good", "rae-1": "ends soon", "u-team1": "good"}
    assert ca("certificates", "--within", "9d") == exit_codes.OK
    authority.issue("rae-1", CertificateKind.RAE, now=NOW)
    assert ca("certificates") == exit_codes.OK
    capsys.readouterr()
    assert ca("certificates", "--all", "--json") == exit_codes.OK
    assert [one["state"] for one in json.loads(capsys.readouterr().out) if one["name"] == "rae-1"] == [
        "renewed",
        "good",
    ]


def test_a_list_that_ends_soon_or_is_not_the_brokers_newest_is_said(tmp_path, capsys):
    Authority.create(tmp_path / "ca", name="short", now=NOW, days=20, durable=False)
    ca = configured(tmp_path, tmp_path / "ca")
    assert ca("certificates", "--json") == exit_codes.DIFFERENT
    assert {one["name"] for one in json.loads(capsys.readouterr().out) if one["state"] == "ends soon"} == {
        "the CA",
        "the list",
    }
    ca = configured(tmp_path, tmp_path / "ca", f"crl_file: {tmp_path}/broker.pem")
    assert ca("certificates", "--within", "1d") == exit_codes.DIFFERENT
    assert "the broker has no list" in capsys.readouterr().err
    (tmp_path / "broker.pem").write_bytes((tmp_path / "ca" / "crl.pem").read_bytes())
    assert ca("certificates", "--within", "1d") == exit_codes.OK
    Authority.open(tmp_path / "ca").revoke([5], now=NOW)
    assert ca("certificates", "--within", "1d") == exit_codes.DIFFERENT
    assert "is not the newest list" in capsys.readouterr().err


def test_states_over_time():
    folder_free = [
        ca_listing._line("a", "rae", "1", NOW + timedelta(days=days), NOW, timedelta(days=30)).state
        for days in (-1, 0, 1, 30, 31)
    ]
    assert folder_free == ["ended", "ended", "ends soon", "ends soon", "good"]


def test_the_lab_uses_this_ca(tmp_path):
    lab = CertificateAuthority(tmp_path / "tls")
    lab.client("rae-1")
    assert [one.name for one in Authority.open(tmp_path / "tls").issued()] == ["rae-1"]


def test_the_operations_guide_makes_a_ca_and_all_that_a_site_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("DMPD_CONFIG", str(tmp_path / "none.yaml"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rae-0001.csr").write_bytes(request(tmp_path, "rae-0001").read_bytes())
    (block,) = document_blocks.of_kind("tests/unit/cli/test_ctl_ca.py")
    for line in block.commands:
        program, *words = shlex.split(line)
        assert (program, dmpctl.main(words)) == ("dmpctl", exit_codes.OK), line
    for made in ("broker/server.key", "services/svc-access.key", "canary/canary-0030.crt", "users/u-team1.watch.key"):
        assert (tmp_path / made).exists()
    credentials.check("rae-0001", certificate=tmp_path / "rae-0001.crt", ca=tmp_path / "ca/ca.crt")


def test_the_routers_guide_signs_its_request(tmp_path, folder, monkeypatch):
    (tmp_path / "dmpd.yaml").write_text(f"ca: {{folder: {folder}}}\n")
    monkeypatch.setenv("DMPD_CONFIG", str(tmp_path / "dmpd.yaml"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "client.csr").write_bytes(request(tmp_path, "rae-1").read_bytes())
    assert dmpctl.main(shlex.split(documented.command("rae.md", "dmpctl access ca"))[1:]) == exit_codes.OK
    credentials.check("rae-1", certificate=tmp_path / "client.crt", ca=folder / "ca.crt")


def test_where_its_library_is_not_installed_it_says_what_brings_it(tmp_path):
    code = (
        "import sys; sys.modules['cryptography'] = None; from dmpd.cli.dmpctl import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "access", "ca", "certificates"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == exit_codes.UNAVAILABLE, done.stderr
    assert "needs cryptography (pip install 'dmpd[ca]')" in done.stderr
