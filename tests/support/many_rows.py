"""A database of the size of a fleet, made by SQL in seconds: what EXPLAIN says of ten rows says nothing."""

import hashlib

SESSIONS = 200_000
PER_RAE = 200

_RAES = """
INSERT INTO rae (rae, epoch, run, state, status, heard_at, kafka_partition, kafka_offset, applied_at)
SELECT 'RAE-' || lpad(n::text, 4, '0'), 1, 1, 'ready',
    jsonb_build_object('v', 1, 'kind', 'status', 'rae', 'RAE-' || lpad(n::text, 4, '0'), 'session', 'rae',
        'at', '2026-11-25T04:00:00Z', 'epoch', 1, 'state', 'ready', 'run', 1, 'seq_high', 9),
    clock_timestamp(), n %% 12, n, clock_timestamp()
FROM generate_series(0, %(sessions)s / %(per_rae)s - 1) AS n
"""

_SESSIONS = """
INSERT INTO device_session (rae, session, epoch, rev, seq, stale, absent_at, closed_at, closed_reason, esn, name, state,
    changed_at, kafka_partition, kafka_offset, applied_at)
SELECT 'RAE-' || lpad((n / %(per_rae)s)::text, 4, '0'),
    (substr(md5(n::text), 1, 8) || '-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
    1, 1 + n %% 50, n, n %% 400 = 0, NULL,
    CASE WHEN n %% 20 = 19 THEN clock_timestamp() END, CASE WHEN n %% 20 = 19 THEN 'left' END,
    CASE WHEN n %% 20 <> 19 THEN 'ESN-' || n END, 'device ' || n,
    (ARRAY['online', 'standby', 'asleep', 'offline', 'unknown'])[1 + n %% 5],
    '2026-11-25T04:00:00Z'::timestamptz + n * interval '1 second', (n / %(per_rae)s) %% 12, n,
    '2026-11-25T04:00:00Z'::timestamptz + n * interval '1 second'
FROM generate_series(0, %(sessions)s - 1) AS n
"""

_INTERFACES = """
INSERT INTO device_interface (rae, session, place, mac, ip4, ip6, hostname, mac_random)
SELECT rae, session, 0, '02:00:' || substr(lpad(to_hex(kafka_offset), 8, '0'), 1, 2) || ':'
        || substr(lpad(to_hex(kafka_offset), 8, '0'), 3, 2) || ':' || substr(lpad(to_hex(kafka_offset), 8, '0'), 5, 2)
        || ':' || substr(lpad(to_hex(kafka_offset), 8, '0'), 7, 2),
    '192.168.' || kafka_offset %% 7 || '.' || 20 + kafka_offset %% %(per_rae)s,
    jsonb_build_array('fe80::' || to_hex(kafka_offset / 65536) || ':'
        || to_hex(kafka_offset %% 65536)), 'host-' || kafka_offset, false
FROM device_session WHERE closed_at IS NULL
"""

_ATTRIBUTES = """
INSERT INTO device_attribute (rae, session, name, value)
SELECT rae, session, attribute, CASE attribute WHEN 'number' THEN to_jsonb(kafka_offset) WHEN 'test_state'
    THEN (CASE WHEN kafka_offset %% 1000 = 0 THEN '"in_test"' ELSE '"available"' END)::jsonb ELSE '"7.1"'::jsonb END
FROM device_session CROSS JOIN (VALUES ('fw'), ('number'), ('sdk'), ('test_state')) AS names (attribute)
WHERE closed_at IS NULL
"""

_EVENTS = """
INSERT INTO device_event (rae, session, at, seq, code, epoch, detail, recorded_at)
SELECT rae, session::text, changed_at, seq, 'state', 1, '{"to": "online"}', applied_at FROM device_session
"""

_RARE_EVENTS = """
INSERT INTO device_event (rae, session, at, seq, code, epoch, detail, recorded_at)
SELECT rae, 'rae', '2026-11-25T04:00:00Z'::timestamptz - n * interval '1 hour', n, 'lan.down', 1, '{}',
    '2026-11-25T04:00:00Z'::timestamptz - n * interval '1 hour'
FROM rae CROSS JOIN generate_series(1, 2) AS n
"""


def fill(connection, *, sessions=SESSIONS):
    """Fill the tables of an empty, migrated database; every twentieth session is closed, every 400th stale."""
    size = {"sessions": sessions, "per_rae": PER_RAE}
    for statement in (_RAES, _SESSIONS, _INTERFACES, _ATTRIBUTES, _EVENTS, _RARE_EVENTS):
        connection.execute(statement, size)
    connection.execute("VACUUM ANALYZE")


def session_of(number):
    """The id of the ``number``-th session."""
    return f"{hashlib.md5(str(number).encode()).hexdigest()[:8]}-0000-4000-8000-{number:012d}"
