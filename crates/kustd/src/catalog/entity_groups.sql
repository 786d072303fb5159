-- from format 3 to 4; entities as KQL, separated by commas
CREATE TABLE entity_groups (
    database_id INTEGER NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    entities TEXT NOT NULL,
    PRIMARY KEY (database_id, name)
) WITHOUT ROWID;
