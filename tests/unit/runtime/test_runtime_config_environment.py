"""Settings by variables of the environment: above all files, as strict as they, and named where they are wrong."""

import pytest
from msgspec import Struct

from dmpd.runtime.config import ConfigError, load, load_with_sources
from dmpd.runtime.settings import Bind, DatabaseSettings, KafkaSettings, LogSettings


class Whole(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    bind: Bind = "a:1"
    kafka: KafkaSettings = KafkaSettings()
    database: DatabaseSettings = DatabaseSettings()
    log: LogSettings | None = None
    verbs: list[str] = []
    count: int | None = None


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dmpd.yaml"
    path.write_text("name: base\nkafka: {username: file}\n")
    return path


def test_variables_come_last_and_text_stays_text(file):
    (file.parent / "dmpd.d").mkdir()
    (file.parent / "dmpd.d" / "1.yaml").write_text("name: overlay\n")
    environment = {
        "DMPD__NAME": "0123",
        "DMPD__KAFKA__USERNAME": "yes",
        "DMPD__KAFKA__OPTIONS": "{linger.ms: 5}",
        "DMPD__VERBS": "[a, b]",
        "DMPD__BIND": "unix:/x",
        "DMPD__LOG__LEVEL": "debug",
        "DMPD__COUNT": "7",
        "DMPD_LOG": "/var/log/dmpd",  # supervisord's, not ours
        "DMPD_CONFIG": "x",
    }
    found, given = load_with_sources(file, Whole, environment=environment)
    assert found == Whole(
        name="0123",
        bind="unix:/x",
        kafka=KafkaSettings(username="yes", options={"linger.ms": 5}),
        log=LogSettings(level="debug"),
        verbs=["a", "b"],
        count=7,
    )
    sources = {one.path: one.source for one in given}
    assert sources["kafka.username"] == "environment DMPD__KAFKA__USERNAME"
    assert sources["verbs"] == "environment DMPD__VERBS"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DMPD__KAFKA__USERNAM", "x", "no such setting; did you mean DMPD__KAFKA__USERNAME?"),
        ("DMPD__ZZZ", "x", "no such setting; known here: name, bind, kafka,"),
        ("DMPD__NAME__X", "x", "name has no settings below it; give it whole, as YAML"),
        ("DMPD__KAFKA__OPTIONS__A", "x", "kafka.options has no settings below it"),
        ("DMPD__COUNT", "many", 'count: expected int, got "many"'),
        ("DMPD__COUNT", "[", "not YAML: "),
        ("DMPD__VERBS", "", "verbs: expected a list, got nothing"),
        ("DMPD__KAFKA", "5", "kafka: expected a map, got 5"),
        ("DMPD__LOG__LEVEL", "loud", "log.level: expected one of"),
        ("DMPD__BIND", "70", "bind: expected host:port or unix:/path"),
        ("DMPD__", "x", "no such setting; known here"),
    ],
)
def test_a_wrong_one_is_named(file, name, value, said):
    with pytest.raises(ConfigError) as caught:
        load(file, Whole, environment={name: value})
    (problem,) = caught.value.problems
    assert problem.startswith(f"environment {name}")
    assert said in problem


@pytest.mark.parametrize(
    "conninfo", ["host=a password=x", "password = x", "postgresql://u:x@h/d", "postgresql://h/d?password=x"]
)
def test_a_password_in_the_connection_string_is_refused(file, conninfo):
    with pytest.raises(ConfigError, match=r"database.*conninfo: expected no password in it"):
        load(file, Whole, environment={"DMPD__DATABASE__CONNINFO": conninfo})


@pytest.mark.parametrize("conninfo", ["host=a user=password", "postgresql://u@h:5432/d", "host=h passfile=/x"])
def test_other_connection_strings_are_taken(file, conninfo):
    assert load(file, Whole, environment={"DMPD__DATABASE__CONNINFO": conninfo}).database.conninfo == conninfo


def test_a_kafka_password_among_the_options_is_refused(file):
    with pytest.raises(ConfigError, match=r"options: expected no sasl\.password"):
        load(file, Whole, environment={"DMPD__KAFKA__OPTIONS": "{sasl.password: x}"})
