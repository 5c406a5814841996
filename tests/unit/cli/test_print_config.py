"""What is in effect and why: what is printed is a configuration that means the same."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import to_builtins

from dmpd.cli import commands, print_config
from dmpd.cli.config import CloudConfig
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.runtime import exit_codes
from dmpd.runtime.config import load
from dmpd.runtime.settings import KafkaSettings

NAMES = st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,2}", fullmatch=True)
COMMANDS = {"print-config": "dmpd.cli.print_config", "check-config": "dmpd.cli.check_config"}


def run(*arguments):
    return commands.run("dmpd", "", COMMANDS, [str(one) for one in arguments])


@pytest.fixture
def files(tmp_path):
    (tmp_path / "dmpd.yaml").write_text("kafka:\n  bootstrap_servers: a:1\n  options: {sasl.oauth.client.secret: x}\n")
    (tmp_path / "dmpd.d").mkdir()
    (tmp_path / "dmpd.d" / "10-site.yaml").write_text("log:\n\n  level: debug\n")
    return tmp_path / "dmpd.yaml"


def test_each_setting_names_its_source(files, capsys, monkeypatch):
    monkeypatch.setenv("DMPD__BRIDGE__RECEIVE_MAXIMUM", "7")
    assert run("print-config", "--config", files, "--json") == exit_codes.OK
    found = {one["path"]: (one["value"], one["source"]) for one in json.loads(capsys.readouterr().out)}
    assert found["kafka.bootstrap_servers"] == ("a:1", f"{files}:2")
    assert found["log.level"] == ("debug", f"{files.parent}/dmpd.d/10-site.yaml:3")
    assert found["bridge.receive_maximum"] == (7, "environment DMPD__BRIDGE__RECEIVE_MAXIMUM")
    assert found["kafka.options"] == ({"sasl.oauth.client.secret": "(not shown)"}, f"{files}:3")
    assert found["database.conninfo"][1] == "default"
    assert not any(isinstance(value, dict) for path, (value, _) in found.items() if not path.endswith("options"))


def test_what_is_printed_is_a_file_that_means_the_same(files, capsys, tmp_path):
    files.write_text(files.read_text().replace("client.secret: x", "scope: 'a: b # c'"))
    assert run("print-config", "--config", files) == exit_codes.OK
    printed = tmp_path / "again.yaml"
    printed.write_text(capsys.readouterr().out)
    assert load(printed, CloudConfig) == load(files, CloudConfig)
    assert f"# {files}:2" in printed.read_text()


def test_the_raes_file_is_known_by_its_name(tmp_path, capsys):
    file = tmp_path / "local-registry.yaml"
    file.write_text("rae: rae-1\n")
    assert run("print-config", "--config", file) == exit_codes.OK
    assert capsys.readouterr().out.startswith("rae: rae-1 ")
    file.write_text("rae: u-somebody\n")
    for command in COMMANDS:
        assert run(command, "--config", file) == exit_codes.CONFIG
        assert f"{file}:1 rae: expected the serial of a RAE, got 'u-somebody'" in capsys.readouterr().err


@settings(deadline=None)
@given(
    st.text(max_size=40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dictionaries(NAMES, st.text(max_size=20), max_size=3),
)
def test_any_value_is_read_back(text, number, options):
    options = {name: value for name, value in options.items() if not any(w in name for w in print_config._SECRET)}
    config = CloudConfig(kafka=KafkaSettings(username=text, options=options | {"number": number}))
    lines = print_config._lines(list(print_config.effective(config, {})))
    assert yaml.safe_load("\n".join(lines)) == to_builtins(config)


def test_every_setting_of_both_schemas_is_shown():
    for config in (CloudConfig(), LocalRegistrySettings(rae="r")):
        shown = {one.path for one in print_config.effective(config, {})}
        assert {path.partition(".")[0] for path in shown} == {*to_builtins(config)}
