-- Until when each rule has been run. Times are nanoseconds since 1970.
CREATE TABLE cursors (
    rule TEXT PRIMARY KEY,
    ended INTEGER NOT NULL,
    reached INTEGER NOT NULL DEFAULT 0 -- another process ran windows up to here; no meaning where it is not after `ended`
) WITHOUT ROWID;

-- Notifications that nobody has taken yet. Times are milliseconds since 1970, but for `window`.
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target INTEGER NOT NULL,
    rule TEXT NOT NULL,
    destination TEXT NOT NULL,
    correlation TEXT NOT NULL, -- empty for none
    title TEXT NOT NULL,
    window INTEGER NOT NULL,   -- end of the window that made it, in nanoseconds
    started INTEGER NOT NULL,  -- its start, in nanoseconds
    body BLOB NOT NULL,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    claimed INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0 -- the last tries that were refused in a row
);
CREATE INDEX notifications_due ON notifications (target, due);
CREATE INDEX notifications_key ON notifications (target, correlation, destination) WHERE correlation <> '';
CREATE INDEX notifications_rule ON notifications (rule, started);
CREATE INDEX notifications_size ON notifications (size);
