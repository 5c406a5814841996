-- By which retention finds grants that were over long ago, and the daemon those that ended while it was away.
CREATE INDEX IF NOT EXISTS access_grant_ends ON access_grant (ends_at);

-- Up to here the audit lacks no line of the daemon: of what ended later, its successor looks for what is missing.
ALTER TABLE access_daemon ADD COLUMN IF NOT EXISTS recorded_until timestamptz;
