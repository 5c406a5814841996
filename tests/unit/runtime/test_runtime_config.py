"""A configuration is used whole or refused with every problem, each with its place and what was expected."""

from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from dmpd.runtime.config import ConfigError, load


class Inner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    batch_records: Annotated[int, Meta(ge=1)] = 500
    linger_s: Annotated[float, Meta(gt=0, le=10)] = 0.5
    names: list[str] = []
    mode: Literal["fast", "safe"] = "fast"
    note: str | None = None
    options: dict[str, int] = {}


class Whole(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kafka: Inner = Inner()
    serial: str
    extra: Inner | None = None


def problems_of(tmp_path, text: str) -> list[str]:
    file = tmp_path / "dmpd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, Whole)
    return [problem.removeprefix(f"{file}:") for problem in caught.value.problems]


def test_good_file_is_loaded_with_defaults(tmp_path):
    file = tmp_path / "dmpd.yaml"
    file.write_text("serial: R1\nkafka:\n  batch_records: 7\n  linger_s: 1\n")
    assert load(file, Whole) == Whole(serial="R1", kafka=Inner(batch_records=7, linger_s=1.0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("serial: R\nkafka:\n  batch_records: many\n", '3 kafka.batch_records: expected int ≥ 1, got "many"'),
        ("serial: R\nkafka: {batch_records: 0}\n", "2 kafka.batch_records: expected int ≥ 1, got 0"),
        ("serial: R\nkafka: {linger_s: 11}\n", "2 kafka.linger_s: expected number > 0 and ≤ 10, got 11"),
        ("serial: R\nkafka: {mode: slow}\n", '2 kafka.mode: expected one of fast, safe, got "slow"'),
        ("serial: R\nkafka: {names: [a, 3]}\n", "2 kafka.names[1]: Expected `str`, got `int`"),
        ("serial: R\nkafka: 3\n", "2 kafka: expected a map, got 3"),
        ("serial: 5\n", "1 serial: expected text, got 5"),
        ("serial: R\nkafka: {batch_record: 3}\n", "2 kafka.batch_record: unknown key; did you mean batch_records?"),
        ("serial: R\nextra: {linger_s: x}\n", '2 extra.linger_s: expected number > 0 and ≤ 10, got "x"'),
        ("serial: R\nserial: S\n", "2 serial: given twice"),
        ("{}\n", "1 serial: missing, expected text"),
        ("", "1 serial: missing, expected text"),
        ("serial: [\n", "2 not YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_problem_names_line_path_and_expectation(tmp_path, text, expected):
    assert problems_of(tmp_path, text) == [expected]


def test_all_problems_are_told_at_once(tmp_path):
    found = problems_of(tmp_path, "kafka:\n  batch_records: x\n  bogus: 1\n  linger_s: -1\n")
    assert [problem.split(":")[0] for problem in found] == [
        "2 kafka.batch_records",
        "3 kafka.bogus",
        "4 kafka.linger_s",
        "1 serial",
    ]


def test_unknown_key_without_a_near_one_lists_what_is_known(tmp_path):
    (problem,) = problems_of(tmp_path, "serial: R\nzzz: 1\n")
    assert problem == "2 zzz: unknown key; known here: kafka, serial, extra"


def test_missing_file_is_a_problem_too(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent.yaml", Whole)


def test_binary_file_is_a_problem_too(tmp_path):
    file = tmp_path / "dmpd.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not YAML"):
        load(file, Whole)


def test_overlays_merge_in_order_and_errors_name_their_file(tmp_path):
    file = tmp_path / "dmpd.yaml"
    file.write_text("serial: R\nkafka: {batch_records: 1, linger_s: 1}\n")
    overlays = tmp_path / "dmpd.d"
    overlays.mkdir()
    (overlays / "10-a.yaml").write_text("kafka: {batch_records: 2}\n")
    (overlays / "20-b.yaml").write_text("kafka: {batch_records: 3}\n")
    assert load(file, Whole).kafka == Inner(batch_records=3, linger_s=1.0)
    (overlays / "30-c.yaml").write_text("\nkafka:\n  batch_records: no\n")
    with pytest.raises(ConfigError) as caught:
        load(file, Whole)
    assert caught.value.problems == [f"{overlays / '30-c.yaml'}:3 kafka.batch_records: expected int ≥ 1, got false"]
