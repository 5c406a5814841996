"""Problems of a configuration: each with file, line, path, what was expected, and all of them at once."""

import pickle
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from dmpd.runtime.config import ConfigError, load


class Kafka(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    servers: str = "here:9092"
    batch_records: Annotated[int, Meta(ge=1)] = 10
    level: Literal["low", "high"] = "low"
    wait_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    password_file: str | None = None
    options: dict[str, str | int] = {}

    def __post_init__(self) -> None:
        if self.batch_records > 5 and self.wait_s > 50:
            raise ValueError("wait_s: expected at most 50 with many batch_records")


class Whole(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)]
    kafka: Kafka = Kafka()
    verbs: list[str] = []
    extra: Kafka | None = None


@pytest.fixture
def problems(tmp_path):
    def find(text, **overlays):
        path = tmp_path / "dmpd.yaml"
        path.write_text(text)
        for name, content in overlays.items():
            (tmp_path / "dmpd.d").mkdir(exist_ok=True)
            (tmp_path / "dmpd.d" / f"{name}.yaml").write_text(content)
        with pytest.raises(ConfigError) as caught:
            load(path, Whole)
        return [one.removeprefix(f"{tmp_path}/") for one in caught.value.problems]

    return find


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("batch_records: many", 'kafka.batch_records: expected int ≥ 1, got "many"'),
        ("batch_records: 0", "kafka.batch_records: expected int ≥ 1, got 0"),
        ("batch_records: 1.5", "kafka.batch_records: expected int ≥ 1, got 1.5"),
        ("batch_records: true", "kafka.batch_records: expected int ≥ 1, got true"),
        ("batch_records:", "kafka.batch_records: expected int ≥ 1, got nothing"),
        ("batch_records: [1]", "kafka.batch_records: expected int ≥ 1, got a list"),
        ("batch_records: {a: 1}", "kafka.batch_records: expected int ≥ 1, got a map"),
        ("wait_s: 61", "kafka.wait_s: expected number > 0 and ≤ 60, got 61"),
        ("level: middle", 'kafka.level: expected one of high, low, got "middle"'),
        ("password_file: 5", "kafka.password_file: expected text, got 5"),
        ("servers: 2026-13-45", "kafka.servers: month must be in 1..12"),
        ("servers: !!python/none x", "kafka.servers: could not determine a constructor"),
        ("batch_record: 1", "kafka.batch_record: unknown key; did you mean batch_records?"),
        ("zzz: 1", "kafka.zzz: unknown key; known here: servers, batch_records,"),
        ("options: {a: [1]}", "kafka.options.a: expected "),
        ("wait_s: 55", "kafka.wait_s: expected at most 50 with many batch_records"),
    ],
)
def test_names_line_path_and_what_was_expected(problems, line, said):
    found = problems(f"name: x\n# a comment\nkafka:\n  {line}\n")
    assert len(found) == 1
    assert found[0].startswith(f"dmpd.yaml:4 {said}")


def test_says_all_at_once_with_their_lines(problems):
    assert problems("kafka:\n  batch_records: 0\n  levle: low\nverbs:\n  - a\n  - 7\nkafka: {}\n") == [
        "dmpd.yaml:7 kafka: given twice",
        "dmpd.yaml:2 kafka.batch_records: expected int ≥ 1, got 0",
        "dmpd.yaml:3 kafka.levle: unknown key; did you mean level?",
        "dmpd.yaml:6 verbs[1]: expected text, got 7",
        "dmpd.yaml:1 name: missing, expected text",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafka: [\n", "dmpd.yaml:2 not YAML"),
        ("a\tb: {", "dmpd.yaml:1"),
        ("", "dmpd.yaml:1 name: missing, expected text"),
        ("{}\n", "dmpd.yaml:1 name: missing, expected text"),
        ("name: x\nkafka: 3\n", "dmpd.yaml:2 kafka: expected a map, got 3"),
        ("name: x\nextra: {wait_s: y}\n", 'dmpd.yaml:2 extra.wait_s: expected number > 0 and ≤ 60, got "y"'),
        ("- 1\n", "dmpd.yaml:1: expected a map, got a list"),
        ("[" * 5000, "dmpd.yaml: nested too deeply"),
    ],
)
def test_refuses_what_is_no_map(problems, text, said):
    assert problems(text)[0].startswith(said)


def test_a_binary_file_is_named(tmp_path):
    (tmp_path / "dmpd.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not YAML"):
        load(tmp_path / "dmpd.yaml", Whole)


def test_a_good_file_is_used_with_defaults_for_the_rest(tmp_path):
    (tmp_path / "dmpd.yaml").write_text("name: R1\nkafka:\n  batch_records: 7\n  wait_s: 2\n")
    assert load(tmp_path / "dmpd.yaml", Whole) == Whole(name="R1", kafka=Kafka(batch_records=7, wait_s=2.0))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: No such file"):
        load(tmp_path / "no.yaml", Whole)


def test_overlays_merge_in_the_order_of_their_names(tmp_path):
    (tmp_path / "dmpd.yaml").write_text("name: base\nkafka:\n  servers: a\n  level: low\nverbs: [x]\n")
    (tmp_path / "dmpd.d").mkdir()
    (tmp_path / "dmpd.d" / "20.yaml").write_text("name: last\nverbs: [y]\n")
    (tmp_path / "dmpd.d" / "10.yaml").write_text("name: first\nkafka: {level: high}\n")
    (tmp_path / "dmpd.d" / "30.yaml").write_text("kafka:\n")
    (tmp_path / "dmpd.d" / "note.txt").write_text("name: not read\n")
    assert load(tmp_path / "dmpd.yaml", Whole) == Whole(
        name="last", kafka=Kafka(servers="a", level="high"), verbs=["y"]
    )


def test_a_problem_in_an_overlay_names_the_overlay(problems):
    found = problems(
        "name: x\nkafka: {servers: a}\n", extra="\nkafka:\n  batch_records: -1\n  level: low\n  level: low\n"
    )
    assert found == [
        "dmpd.d/extra.yaml:5 kafka.level: given twice",
        "dmpd.d/extra.yaml:3 kafka.batch_records: expected int ≥ 1, got -1",
    ]


def test_an_empty_section_means_its_defaults(tmp_path):
    (tmp_path / "dmpd.yaml").write_text("name: x\nkafka:\n  # servers: a\n")
    assert load(tmp_path / "dmpd.yaml", Whole) == Whole(name="x")


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ConfigError(["a", "b"])))
    assert (str(error), error.problems) == ("a\nb", ["a", "b"])
