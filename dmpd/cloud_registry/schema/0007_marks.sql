-- How far each running Cloud Registry has counted. It knows what it wrote last: if the database says less, the database
-- went back (restored from a backup, or failed over to a server that had not everything), and rows with it.

CREATE TABLE IF NOT EXISTS registry_mark (
    instance uuid NOT NULL,
    mark bigint NOT NULL,
    marked_at timestamptz NOT NULL,
    PRIMARY KEY (instance)
);
