"""Every number that the codec takes, the database takes: else it would come back as a refusal of a whole batch."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from dmpd.model.codec import InvalidMessageError, encode
from dmpd.model.record import RecordPatch
from tests.support.messages import change
from tests.support.rows import migrated

pytestmark = pytest.mark.services

ZEROS = st.integers(0, 17_000).map("0".__mul__)
ONES = st.integers(1, 17_000).map("1".__mul__)
MANTISSAS = st.one_of(
    st.sampled_from(["0", "-0", "1", "-12", "0.0", "0.5", "1.50", "-0.000", "123456789.123456789"]),
    st.builds("0.{}".format, ZEROS.filter(bool)),
    st.builds("0.{}1".format, ZEROS),
    st.builds("1.{}".format, ONES),
    st.builds("0.{}{}".format, ZEROS, ONES),
)
SIZES = st.one_of(*(st.integers(0, high) for high in (9, 99, 400, 20_000, 10**20)))
EXPONENTS = st.just("") | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), SIZES)


@pytest.fixture(scope="module")
def connection(postgres_server):
    with postgres_server.database() as settings, migrated(settings) as connection:
        yield connection


@settings(max_examples=300, deadline=None)
@given(mantissa=MANTISSAS, exponent=EXPONENTS)
@example("0", "e-99999")
@example("0.0", "e-16383")
@example("0", "e-16383")
@example("0", "e99999999999999999999")
@example("0." + "1" * 16_100, "e-305")
@example("1", "e308")
@example("4.9", "e-324")
@example("1", "e0000000000000000000000001")
def test_what_the_codec_takes_the_database_takes(connection, mantissa, exponent):
    number = mantissa + exponent
    try:
        encode(change(2, patch=RecordPatch(attributes={"a": Raw(number.encode())})))
    except InvalidMessageError:
        return
    assert connection.execute("SELECT %s::text::jsonb IS NOT NULL", (number,)).fetchone() == (True,)
