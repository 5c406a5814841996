"""A page that names tests names tests that are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGES = TESTS.parent / "docs"
NAMED = re.compile(r"`((?:unit|property|integration|process|contract|sim|bench)/[\w/]+\.py)(?:::(\w+))?`")


def missing(text):
    for file, test in NAMED.findall(text):
        path = TESTS / file
        if not path.exists() or (test and f"def {test}(" not in path.read_text()):
            yield f"{file}::{test}"


@pytest.mark.parametrize("page", ["access-tests.md", "cloud-registry-tests.md", "canary-tests.md"])
def test_the_tests_that_are_named_exist(page):
    text = (PAGES / page).read_text()
    assert len(NAMED.findall(text)) > 30
    assert list(missing(text)) == []


@pytest.mark.parametrize("name", ["unit/nothing.py", "tidy/x.py", "property/test_model_fold.py::test_nothing"])
def test_a_name_that_is_wrong_is_found(name):
    assert bool(list(missing(f"`{name}`"))) == (not name.startswith("tidy"))
