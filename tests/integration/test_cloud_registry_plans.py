"""What dmpctl asks of 200,000 device sessions, as PostgreSQL would do it: by an index, and no more than it needs.

Takes 40 s, most of them to fill the tables.
"""

import json
from datetime import UTC, datetime, timedelta

import pytest

from dmpd.cloud_registry import devices, history, query, reader, stale, statements
from dmpd.cloud_registry.device_filter import DeviceFilter
from dmpd.cloud_registry.reconcile import BEGIN
from tests.support import many_rows
from tests.support.many_rows import session_of
from tests.support.rows import migrated
from tests.support.services import only_postgresql

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]

KEY = "s.rae, s.session"
BEGUN = datetime(2026, 11, 25, 4, 0, 0, tzinfo=UTC)
RAE = "RAE-0500"
STALE = many_rows.SESSIONS // 400
NUMBER = 500 * many_rows.PER_RAE + 7


@pytest.fixture(scope="module")
def connection(postgres_server):
    only_postgresql()
    with postgres_server.database() as settings, migrated(settings) as connection:
        many_rows.fill(connection)
        yield connection


class Plan:
    """What EXPLAIN (ANALYZE, BUFFERS) says of one statement."""

    def __init__(self, connection, statement, values):
        (said,) = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values).fetchone()
        self.root = (json.loads(said) if isinstance(said, str) else said)[0]["Plan"]
        self.text = json.dumps(self.root, indent=1)
        self.nodes = list(self._below(self.root))

    def _below(self, node):
        yield node
        for child in node.get("Plans", ()):
            yield from self._below(child)

    @property
    def read_whole(self):
        """Tables read from end to end."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    @property
    def indexes(self):
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def rows(self):
        return self.root["Actual Rows"]

    @property
    def buffers(self):
        """Pages of 8 KiB looked at."""
        return self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"]


def device_plan(connection, limit=10_000, **wanted):
    filter_ = DeviceFilter(**wanted)
    assert filter_.is_indexed
    text, values = devices.statement(filter_, order=KEY)
    return Plan(connection, text, values | {"limit": limit})


def page_plan(connection, order=KEY, limit=devices.PAGE_SESSIONS, **wanted):
    """A page in the middle of a walk."""
    filter_ = DeviceFilter(**wanted)
    assert not filter_.is_indexed
    text, _, values = devices.pages(filter_, order)
    zero = BEGIN[2]
    bounds = {"after_rae": RAE, "after_session": zero, "end_rae": "RAE-0510", "end_session": zero}
    return Plan(connection, text, values | bounds | {"limit": limit})


SELECTIVE = {
    "one RAE": ({"rae": RAE}, "device_session_pkey", 190),
    "one RAE and a state": ({"rae": RAE, "state": "online"}, "device_session_pkey", 40),
    "one RAE and an attribute": ({"rae": RAE, "attributes": {"fw": '"7.1"'}}, "device_attribute_pkey", 190),
    "an ESN": ({"esn": f"ESN-{NUMBER}"}, "device_session_esn", 1),
    "a MAC": ({"mac": "02:00:00:01:86:a7"}, "device_interface_mac", 1),
    "an IPv4 address": ({"ip": "192.168.3.24"}, "device_interface_ip4", 143),
    "an IPv6 address": ({"ip": "fe80::1:86a7"}, "device_interface_ip6", 1),
    "stale ones": ({"stale": True}, "device_session_stale", 500),
    "stale ones with an attribute": (
        {"stale": True, "attributes": {"test_state": '"in_test"'}},
        "device_session_stale",
        100,
    ),
}


@pytest.mark.parametrize("name", SELECTIVE)
def test_a_selective_filter_is_led_by_its_index(connection, name):
    wanted, index, rows = SELECTIVE[name]
    plan = device_plan(connection, **wanted)
    assert index in plan.indexes, plan.text
    assert plan.read_whole <= {"rae"}, plan.text
    assert plan.rows == rows
    looked_at = max(rows, many_rows.PER_RAE if "rae" in wanted else 0, STALE if "stale" in wanted else 0)
    assert plan.buffers <= 60 + 30 * looked_at, plan.text


PAGES = {
    "all": ({}, 1900),
    "a state": ({"state": "online"}, 400),
    "since": ({"since": BEGUN + timedelta(seconds=NUMBER)}, 1893),
    "an attribute": ({"attributes": {"test_state": '"in_test"'}}, 2),
    "two attributes": ({"attributes": {"test_state": '"in_test"', "fw": '"7.1"'}}, 2),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_walk_reads_its_page_by_the_key(connection, name):
    wanted, rows = PAGES[name]
    plan = page_plan(connection, **wanted)
    assert plan.rows == pytest.approx(rows, abs=10)
    assert "device_session_pkey" in plan.indexes, plan.text
    assert plan.read_whole <= {"rae"}, plan.text
    assert plan.buffers <= 20 * devices.PAGE_SESSIONS, plan.text


def test_a_sorted_page_is_read_by_the_key_and_sends_its_first_rows_only(connection):
    plan = page_plan(connection, order="s.changed_at DESC, s.rae, s.session", limit=20)
    assert plan.rows == 20
    assert plan.read_whole <= {"rae"}, plan.text
    assert "device_session_pkey" in plan.indexes


def test_the_end_of_a_page_is_read_by_the_key(connection):
    plan = Plan(connection, devices.PAGE_END, (RAE, BEGIN[2], devices.PAGE_SESSIONS - 1))
    assert plan.indexes == {"device_session_pkey"}
    assert not plan.read_whole


def test_one_session_is_found_by_how_it_begins_and_read_by_its_key(connection):
    session = session_of(NUMBER)
    first, last = query.session_range(session[:7])
    plan = Plan(connection, query.FIND_SESSIONS, {"first": first, "last": last, "rae": None, "limit": query.FOUND_MAX})
    assert plan.indexes == {"device_session_session"}, plan.text
    assert 1 <= plan.rows <= 3
    keys = reader.columns([(RAE, session)])
    by_keys = (statements.READ, statements.READ_INTERFACES, statements.READ_ATTRIBUTES, statements.CONTENT_BYTES)
    for statement, values in (*((one, keys) for one in by_keys), (statements.READ_WHOLE, (*keys, 1 << 20))):
        plan = Plan(connection, statement, values)
        assert not plan.read_whole, plan.text
        assert plan.buffers <= 30
    assert query.find_sessions(connection, session) == [(RAE, session)]


def test_raes_are_counted_one_by_one(connection):
    asked = {"rae": None, "canary": False, "limit": 100_000}
    plan = Plan(connection, query.RAES, asked)
    assert plan.rows == many_rows.SESSIONS / many_rows.PER_RAE
    assert plan.read_whole <= {"rae"}, plan.text
    one = Plan(connection, query.RAES, asked | {"rae": RAE})
    assert one.rows == 1
    assert one.read_whole <= {"rae"}, one.text


HISTORIES = {
    "of all": ({}, "device_event_recorded", 50),
    "since": ({"since": BEGUN + timedelta(seconds=199_990)}, "device_event_recorded", 10),
    "of a session": ({"rae": RAE, "session": session_of(NUMBER)}, "device_event_pkey", 1),
    "of a RAE": ({"rae": RAE}, "device_event_pkey", 50),
    "of a rare code": ({"code": "lan.down"}, "device_event_code", 50),
    "of a code that nothing has": ({"code": "lan.up"}, "device_event_code", 0),
    "of a rare code since": ({"code": "lan.down", "since": BEGUN - timedelta(hours=1)}, "device_event_code", 50),
    "of a frequent code": ({"code": "state"}, "device_event_recorded", 50),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_history_is_read_by_an_index(connection, name):
    asked, index, rows = HISTORIES[name]
    nothing = {"rae": None, "session": None, "code": None, "since": None, "canary": False, "limit": 50}
    plan = Plan(connection, *history.statement(**(nothing | asked)))
    assert plan.indexes == {index}, plan.text
    assert not plan.read_whole
    assert plan.rows == rows
    assert plan.buffers <= 400, plan.text


def test_the_index_of_codes_holds_none_of_the_states(connection):
    (size,) = connection.execute("SELECT pg_relation_size('device_event_code')").fetchone()
    assert size < 200 * 1024, "of 2,000 rare events beside 200,000 states"


def test_reconciliation_reads_stale_rows_only(connection):
    partitions = list(range(12))
    page = Plan(connection, stale.PAGE, (partitions, *BEGIN, 100))
    assert page.rows == 100
    assert "device_session_stale" in page.indexes, page.text
    assert page.read_whole <= {"rae"}, page.text
    assert page.buffers <= 1500, page.text
    count = Plan(connection, stale.COUNT, (partitions,))
    assert count.indexes == {"device_session_stale"}
    assert not count.read_whole


def test_whole_questions_answer_right_at_this_size(connection):
    def numbers(**asked):
        found = devices.find(connection, asked.pop("wanted"), **asked)
        return [int(device.session[-12:]) for device in found]

    in_test = DeviceFilter(attributes={"test_state": '"in_test"'})
    assert sorted(numbers(wanted=in_test, limit=1000)) == list(range(0, many_rows.SESSIONS, 1000))
    newest = numbers(wanted=DeviceFilter(), limit=3, sort="changed", descending=True)
    assert newest == [199_998, 199_997, 199_996]
    assert len(numbers(wanted=DeviceFilter(state="online"), limit=100)) == 100
