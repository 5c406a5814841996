"""What a person is shown of all rows together."""

import contextlib

import pytest

from dmpd.cloud_registry.figures import Figures
from dmpd.model import limits
from tests.support.messages import checkpoint, session_id
from tests.support.rows import OutputTwin, make_handler, migrated, record_of

pytestmark = pytest.mark.services


def test_the_highest_revisions_can_be_summed(postgres):
    """A RAE may say any; their sum is beyond the database's integers."""
    records = [record_of(checkpoint(limits.INT64_MAX, session=session_id(n)), n) for n in range(3)]
    with migrated(postgres), contextlib.closing(make_handler(postgres)) as handler:
        handler.handle(records, OutputTwin())
        with contextlib.closing(Figures(postgres, application="test")) as figures:
            totals = figures.totals()
    assert (totals.rows, totals.revs) == (3, 3 * limits.INT64_MAX)
