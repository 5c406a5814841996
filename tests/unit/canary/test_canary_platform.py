"""What a run asks before it begins, and of the Cloud Registry: no answer is no proof of anything."""

import pytest
from msgspec import structs

from dmpd.canary import platform
from dmpd.canary.platform import Platform, draining, missing_certificates, worker_deaths
from dmpd.canary.settings import CanarySettings
from dmpd.runtime.settings import DatabaseSettings, KafkaSettings, MqttSettings, TopicSettings

PLATFORM = Platform(
    kafka=KafkaSettings(),
    topics=TopicSettings(),
    mqtt=MqttSettings(),
    database=DatabaseSettings(),
    group="g",
    registry_bind="127.0.0.1:1",
)
DEATHS = b"""\
# HELP dmpd_stream_worker_deaths_total x
dmpd_stream_worker_deaths_total{partition="0",cause="signal"} 2.0
dmpd_stream_worker_deaths_total{partition="1",cause="exit"} 1.0
dmpd_stream_worker_deaths_created 9.0
"""


def says(monkeypatch, body):
    monkeypatch.setattr(platform.health, "fetch", lambda *_: (200, body))


def test_deaths_of_workers_are_summed(monkeypatch):
    says(monkeypatch, DEATHS)
    assert worker_deaths(PLATFORM) == 3
    says(monkeypatch, b"")
    assert worker_deaths(PLATFORM) == 0


def test_who_cannot_be_asked_is_unknown_and_keeps_nobody():
    for one in (PLATFORM, structs.replace(PLATFORM, registry_bind=None)):
        assert worker_deaths(one) is None
        assert draining(one) is None


def test_while_the_cloud_registry_drains_there_is_no_run(monkeypatch):
    says(monkeypatch, b"draining\n")
    assert draining(PLATFORM).name == "draining"
    says(monkeypatch, b"ready\n")
    assert draining(PLATFORM) is None


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["canary-0001", "canary-0002", "canary-0003"], None),
        (["canary-0001", "canary-0003"], "1 of 3 certificates are missing, the first is canary-0002.crt or its key"),
        ([], "3 of 3 certificates are missing, the first is canary-0001.crt"),
    ],
)
def test_missing_certificates_are_counted_and_named(tmp_path, there, said):
    for name in there:
        (tmp_path / f"{name}.crt").touch()
        (tmp_path / f"{name}.key").touch()
    (tmp_path / "canary-0002.crt").touch()  # a certificate without its key is none
    reason = missing_certificates(CanarySettings(certificates_dir=str(tmp_path), clients=2, control_clients=1))
    assert (reason is None) == (said is None)
    if reason is not None:
        assert reason.word == "unknown"
        assert said in reason.sentence


def test_no_folder_of_certificates_is_named():
    reason = missing_certificates(CanarySettings(certificates_dir="/nowhere"))
    assert reason.sentence == "canary.certificates_dir /nowhere: no such folder; 3020 certificates are needed"
