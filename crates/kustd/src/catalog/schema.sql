-- format 1; what came later is in the migrations
CREATE TABLE IF NOT EXISTS databases (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    created INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS tables (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    database_id INTEGER NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    next_column INTEGER NOT NULL,
    folder TEXT NOT NULL,
    docstring TEXT NOT NULL,
    created INTEGER NOT NULL,
    sealed_lsn INTEGER NOT NULL DEFAULT 0,
    UNIQUE (database_id, name)
);
CREATE TABLE IF NOT EXISTS columns (
    table_id INTEGER NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
    id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    PRIMARY KEY (table_id, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS functions (
    database_id INTEGER NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    parameters TEXT NOT NULL,
    body TEXT NOT NULL,
    folder TEXT NOT NULL,
    docstring TEXT NOT NULL,
    PRIMARY KEY (database_id, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mappings (
    table_id INTEGER NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    mapping TEXT NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (table_id, kind, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS database_policies (
    database_id INTEGER NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    policy TEXT NOT NULL,
    PRIMARY KEY (database_id, kind)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS table_policies (
    table_id INTEGER NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    policy TEXT NOT NULL,
    PRIMARY KEY (table_id, kind)
) WITHOUT ROWID;
-- min and max of ingestion and of the table's time column, in ticks since year 1
CREATE TABLE IF NOT EXISTS extents (
    id TEXT PRIMARY KEY,
    table_id INTEGER NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
    row_count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    original_bytes INTEGER NOT NULL,
    created INTEGER NOT NULL,
    min_ingested INTEGER NOT NULL,
    max_ingested INTEGER NOT NULL,
    time_column INTEGER,
    min_time INTEGER,
    max_time INTEGER,
    dictionaries TEXT NOT NULL,
    tags TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS extents_by_table ON extents (table_id);
-- batch ids of journal frames that are trimmed
CREATE TABLE IF NOT EXISTS batches (
    key BLOB PRIMARY KEY,
    seen INTEGER NOT NULL
) WITHOUT ROWID;
