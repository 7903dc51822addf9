-- What linked devices need, for all tenants: before this, each tenant had a folder with a database of its own.
-- Times are milliseconds since 1970.

-- One row for each device that a tenant has linked, or is linking.
CREATE TABLE stores (
    key    INTEGER PRIMARY KEY AUTOINCREMENT,        -- never used a second time
    tenant INTEGER NOT NULL,
    state  TEXT NOT NULL,                            -- live, or quarantined: no longer used, kept for a person
    at     INTEGER NOT NULL,                         -- since when
    record BLOB NOT NULL                             -- JSON: what is known of the session
);
CREATE UNIQUE INDEX stores_live ON stores (tenant) WHERE state = 'live';

-- What the library keeps for a device: its credentials, keys, ratchets, contacts, and texts that may be asked for again.
CREATE TABLE state (
    store      INTEGER NOT NULL,
    kind       INTEGER NOT NULL,                     -- see cells.rs
    name       BLOB NOT NULL,
    value      BLOB NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (store, kind, name)
) WITHOUT ROWID;
CREATE INDEX state_by_age ON state (expires_at) WHERE expires_at IS NOT NULL;

-- The folders of the earlier layout that were taken over, so that none is taken over again over what came after it.
CREATE TABLE imported (folder TEXT PRIMARY KEY) WITHOUT ROWID;

-- Two writes less for every message: those that wait are found by their status, or, for all tenants, by their deadline.
DROP INDEX messages_pending_of;
