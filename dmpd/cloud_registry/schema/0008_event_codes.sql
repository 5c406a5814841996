-- What `dmpctl history --code` looks for. States and ends are most of what happens, and a few rows back there is one by
-- device_event_recorded: they are not in this index, so that it costs what is written all the time nothing.

CREATE INDEX IF NOT EXISTS device_event_code ON device_event (code, recorded_at)
    WHERE code <> 'state' AND code <> 'closed';
