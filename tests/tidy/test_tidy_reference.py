"""What is declared is documented, and the examples of etc/ are true."""

import re
from pathlib import Path

import pytest
import yaml

from dmpd.cli.config import CloudConfig
from dmpd.cli.reference import reference
from dmpd.cli.reference_words import settings_rows
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.model.invalid import INVALID_REASONS
from dmpd.runtime.config import load
from dmpd.runtime.settings import KafkaSettings, TopicSettings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {"dmpd.yaml": CloudConfig, "local-registry.yaml": LocalRegistrySettings}


@pytest.mark.parametrize("page", sorted(reference()))
def test_reference_page_is_what_the_code_says(page):
    written = (ROOT / "docs" / page).read_text()
    assert written == reference()[page], "run: .venv/bin/python -m dmpd.cli.reference"


@pytest.mark.parametrize("schema", EXAMPLES.values(), ids=EXAMPLES)
def test_every_setting_says_what_it_means(schema):
    assert [path for path, _, _, meaning in settings_rows(schema) if not meaning] == []


def test_every_reason_of_refusal_is_explained():
    text = (ROOT / "docs/messages.md").read_text()
    assert [reason for reason in INVALID_REASONS if f"| `{reason}` |" not in text] == []


def test_every_command_tells_its_exit_codes():
    lines = re.findall(r"^\| `(dmp(?:d|ctl) \S+)` \| (.*) \|$", reference()["exit-codes.md"], re.MULTILINE)
    assert len(lines) > 10
    assert [command for command, codes in lines if not codes.startswith("0 ")] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_a_good_configuration(name):
    load(ROOT / "etc" / name, EXAMPLES[name])


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_good_with_all_its_comments_taken_in(name, tmp_path):
    text = (ROOT / "etc" / name).read_text()
    opened = re.sub(r"^( +)# (\w+: )", r"\1\2", text, flags=re.MULTILINE)
    (tmp_path / name).write_text(opened)
    load(tmp_path / name, EXAMPLES[name])


def test_commented_values_of_the_example_are_the_defaults():
    text = (ROOT / "etc/dmpd.yaml").read_text()
    defaults = {path: value.strip("`") for path, _, value, _ in settings_rows(CloudConfig)}
    section: list[str] = []
    checked = 0
    for line in text.splitlines():
        if match := re.match(r"^( *)(\w+):\s*(?:#.*)?$", line):
            section = [*section[: len(match[1]) // 2], match[2]]
        elif match := re.match(r"^( +)# (\w+): (.*?)(?: +#.*)?$", line):
            path = ".".join([*section[: len(match[1]) // 2], match[2]])
            assert str(yaml.safe_load(defaults[path])) == match[3], path
            checked += 1
    assert checked >= 8


def test_topics_of_stream_and_section_must_agree(tmp_path):
    file = tmp_path / "dmpd.yaml"
    file.write_text("topics: {info: other.info}\n")
    with pytest.raises(Exception, match=r"expected topics.info and topics.info_dead \(other.info"):
        load(file, CloudConfig)
    file.write_text("topics: {info: other.info}\ncloud_registry: {stream: {topic: other.info}}\n")
    assert load(file, CloudConfig).topics == TopicSettings(info="other.info")
    assert load(file, CloudConfig).kafka == KafkaSettings()
