-- What people look for (see query.py) and what reconciliation asks for, each by an index. None of them holds a column
-- that changes with most messages: those updates stay on their page (HOT) and touch no index.

CREATE INDEX IF NOT EXISTS device_session_session ON device_session (session);

CREATE INDEX IF NOT EXISTS device_session_esn ON device_session (esn) WHERE esn IS NOT NULL;

CREATE INDEX IF NOT EXISTS device_session_stale ON device_session (kafka_partition, rae, session)
    WHERE stale AND closed_at IS NULL;

CREATE INDEX IF NOT EXISTS device_interface_mac ON device_interface (mac);

CREATE INDEX IF NOT EXISTS device_interface_ip4 ON device_interface (ip4) WHERE ip4 IS NOT NULL;

CREATE INDEX IF NOT EXISTS device_interface_ip6 ON device_interface USING gin (ip6);
