"""What most of these tests begin with."""

import pytest

from tests.support.rows import migrated


@pytest.fixture
def connection(postgres):
    """To a database of this test alone, with the tables."""
    with migrated(postgres) as connection:
        yield connection
