"""A RAE's key, request and certificate: what is made, what is refused and why, and that a refusal changes nothing."""

import stat
import subprocess

import pytest

from dmpd.lab.certificates import CertificateAuthority
from dmpd.local_registry import credentials
from dmpd.local_registry.credentials import CredentialsError
from dmpd.runtime.settings import MqttSettings
from tests.support.signing import sign

RAE = "lab-7.R_1"


@pytest.fixture
def mqtt(tmp_path):
    folder = tmp_path / "tls"
    return MqttSettings(
        ca_file=str(folder / "ca.crt"), cert_file=str(folder / "client.crt"), key_file=str(folder / "client.key")
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


def files(mqtt):
    folder = credentials.request_path(mqtt).parent
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def enrolled(mqtt, authority):
    request = credentials.make_request(RAE, mqtt, renew=False)
    credentials.install(RAE, mqtt, certificate=sign(request, authority), ca=authority.ca_file.read_bytes())


def test_what_is_lacking_is_named_until_it_is_there(mqtt, authority):
    told = credentials.lacking(RAE, mqtt)
    assert all(name in told for name in (mqtt.key_file, mqtt.cert_file, mqtt.ca_file, f"CN {RAE}", "dmpctl enroll"))
    credentials.make_request(RAE, mqtt, renew=False)
    assert mqtt.key_file not in credentials.lacking(RAE, mqtt)
    enrolled(mqtt, authority)
    assert credentials.lacking(RAE, mqtt) is None


def test_key_and_certificate_are_for_root_and_the_folders_group(mqtt, authority):
    enrolled(mqtt, authority)
    assert set(files(mqtt)) == {"ca.crt", "client.crt", "client.key"}
    for name in files(mqtt):
        path = credentials.request_path(mqtt).with_name(name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_gid == path.parent.stat().st_gid
    assert stat.S_IMODE(credentials.request_path(mqtt).parent.stat().st_mode) == 0o750


def test_asked_twice_the_key_stays(mqtt):
    credentials.make_request(RAE, mqtt, renew=False)
    key = files(mqtt)["client.key"]
    credentials.make_request(RAE, mqtt, renew=False)
    assert files(mqtt)["client.key"] == key


def test_a_renewal_leaves_the_old_pair_until_the_new_one_is_whole(mqtt, authority):
    enrolled(mqtt, authority)
    before = files(mqtt)
    request = credentials.make_request(RAE, mqtt, renew=True)
    waiting = files(mqtt)
    assert {name: waiting[name] for name in before} == before
    credentials.install(RAE, mqtt, certificate=sign(request, authority), ca=None)
    after = files(mqtt)
    assert set(after) == set(before)
    assert after["client.key"] == waiting["client.key.next"] != before["client.key"]
    assert after["client.crt"] != before["client.crt"]


def another_name(mqtt, authority):
    return authority.client("R2").cert.read_bytes(), None


def several_names(mqtt, authority):
    folder = credentials.request_path(mqtt).parent
    command = ["openssl", "req", "-new", "-key", mqtt.key_file, "-subj", f"/CN={RAE}/CN=admin", "-out", folder / "two"]
    subprocess.run(command, check=True, timeout=60)
    signed = sign(folder / "two", authority)
    (folder / "two").unlink()
    return signed, None


def another_key(mqtt, authority):
    return authority.client(RAE).cert.read_bytes(), None


def another_ca(mqtt, authority):
    other = CertificateAuthority(authority.folder / "other")
    return sign(credentials.request_path(mqtt), authority), other.ca_file.read_bytes()


def for_servers(mqtt, authority):
    return sign(credentials.request_path(mqtt), authority, usage="serverAuth"), None


def no_certificate(mqtt, authority):
    return b"not a certificate\n", None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (another_name, f"CN must be {RAE} and nothing else, it has: R2"),
        (several_names, f"it has: {RAE}, admin"),
        (another_key, "not signed for a key of this router"),
        (another_ca, "not good by this CA"),
        (for_servers, "not good by this CA"),
        (no_certificate, "openssl x509"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(mqtt, authority, wrong, told):
    credentials.make_request(RAE, mqtt, renew=False)
    certificate, ca = wrong(mqtt, authority)
    before = files(mqtt)
    with pytest.raises(CredentialsError, match=told):
        credentials.install(RAE, mqtt, certificate=certificate, ca=ca or authority.ca_file.read_bytes())
    assert files(mqtt) == before


def test_without_a_ca_it_says_so(mqtt, authority):
    request = credentials.make_request(RAE, mqtt, renew=False)
    with pytest.raises(CredentialsError, match=r"ca\.crt is not there: give the CA too"):
        credentials.install(RAE, mqtt, certificate=sign(request, authority), ca=None)


def test_a_certificate_that_is_over_is_refused(mqtt, authority, monkeypatch):
    request = credentials.make_request(RAE, mqtt, renew=False)
    certificate = sign(request, authority)
    run = credentials._openssl

    def in_the_year_2100(command, *words):  # the machine's clock is nobody's to set
        return run(command, *(("-attime", "4102444800") if command == "verify" else ()), *words)

    monkeypatch.setattr(credentials, "_openssl", in_the_year_2100)
    with pytest.raises(CredentialsError, match=r"at this router's time: .*certificate has expired"):
        credentials.install(RAE, mqtt, certificate=certificate, ca=authority.ca_file.read_bytes())
