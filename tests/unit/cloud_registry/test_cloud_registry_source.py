"""Dead letters are limited per RAE."""

import pytest

from dmpd.cloud_registry.source import source_of


@pytest.mark.parametrize(
    ("key", "source"),
    [
        (b"dmp/v1/rae-7/rae/info", b"rae-7"),
        (b"dmp/v1/rae-7/00000000-0000-4000-8000-000000000001/info", b"rae-7"),
        (b"dmp/v1/rae-7", b"dmp/v1/rae-7"),
        (b"dmp/v2/rae-7/rae/info", b"dmp/v2/rae-7/rae/info"),
        (b"other", b"other"),
        (b"", b""),
        (None, b""),
    ],
)
def test_a_source_is_the_rae_of_the_topic_or_the_key_itself(key, source):
    assert source_of(key) == source
