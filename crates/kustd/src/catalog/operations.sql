-- from format 2 to 3
ALTER TABLE functions ADD COLUMN view INTEGER NOT NULL DEFAULT 0;
CREATE TABLE cluster_policies (
    kind TEXT PRIMARY KEY,
    policy TEXT NOT NULL
) WITHOUT ROWID;
-- asynchronous commands; those that were running when the program ended are failed at the next start
CREATE TABLE operations (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    database TEXT NOT NULL,
    started INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    state TEXT NOT NULL,
    status TEXT NOT NULL,
    should_retry INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX operations_by_time ON operations (started);
