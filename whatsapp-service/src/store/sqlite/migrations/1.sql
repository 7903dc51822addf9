-- The first released schema. Never edit it: what has to change goes into the next file.
-- Times are milliseconds since 1970.

-- One row: what this database is called in the ids of its events.
CREATE TABLE instance (id TEXT NOT NULL);

CREATE TABLE tenants (
    key           INTEGER PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    last_sequence INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE messages (
    row           INTEGER PRIMARY KEY AUTOINCREMENT, -- the order in which they were accepted
    tenant        INTEGER NOT NULL,
    id            TEXT NOT NULL,                     -- WhatsApp's
    recipient     TEXT NOT NULL,                     -- the digits that the caller gave
    number        TEXT,                              -- the number that WhatsApp knows the recipient by
    account       TEXT,                              -- the number that it is to be sent from, where that is known
    content       TEXT,                              -- JSON; gone once it is no longer needed
    reference     TEXT,                              -- the caller's
    status        TEXT NOT NULL,
    pending       INTEGER NOT NULL,                  -- whether there is still something to do for it
    tried         INTEGER NOT NULL,                  -- whether it may have left: set before the first byte can
    attempts      INTEGER NOT NULL DEFAULT 0,
    accepted_at   INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    unknown_at    INTEGER,
    sent_at       INTEGER,
    server_at     INTEGER,                           -- when the server took it, by its own clock
    delivered_at  INTEGER,
    read_at       INTEGER,
    failed_at     INTEGER,
    code          TEXT,
    reason        TEXT,
    retryable     INTEGER,
    whatsapp_code TEXT
);
CREATE UNIQUE INDEX messages_by_id ON messages (tenant, id);
CREATE INDEX messages_by_tenant ON messages (tenant, row);
CREATE INDEX messages_by_status ON messages (tenant, status, row);
CREATE INDEX messages_pending_of ON messages (tenant, row) WHERE pending = 1;
CREATE INDEX messages_pending ON messages (expires_at) WHERE pending = 1;
CREATE INDEX messages_by_age ON messages (accepted_at) WHERE pending = 0;

CREATE TABLE idempotency (
    tenant      INTEGER NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    message     INTEGER NOT NULL,                    -- messages.row
    at          INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (at);

CREATE TABLE events (
    tenant   INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    at       INTEGER NOT NULL,
    data     TEXT NOT NULL,                          -- JSON
    delivery INTEGER,                                -- 0: due at the webhook, 1: given up, NULL: neither
    PRIMARY KEY (tenant, sequence)
) WITHOUT ROWID;
CREATE INDEX events_due ON events (tenant, sequence) WHERE delivery = 0;
CREATE INDEX events_dead ON events (tenant, sequence) WHERE delivery = 1;
CREATE INDEX events_by_age ON events (at);

-- Which incoming messages are in the event log: WhatsApp may hand them over again.
CREATE TABLE received (
    tenant  INTEGER NOT NULL,
    message BLOB NOT NULL,                           -- a digest of chat, sender and id
    at      INTEGER NOT NULL,
    asked   INTEGER,                                 -- how often it was asked for again, while it is not in the log
    PRIMARY KEY (tenant, message)
) WITHOUT ROWID;
CREATE INDEX received_by_age ON received (at);

-- A tenant's own webhook; without a row the one for all tenants counts.
CREATE TABLE webhooks (
    tenant INTEGER PRIMARY KEY,
    url    TEXT NOT NULL,
    secret TEXT NOT NULL,
    events TEXT                                      -- JSON array of kinds; NULL: all
);

-- How the deliveries to a tenant's webhook go, whosever it is.
CREATE TABLE deliveries (
    tenant          INTEGER PRIMARY KEY,
    failures        INTEGER NOT NULL DEFAULT 0,      -- in a row
    next_attempt_at INTEGER,
    last_error      TEXT,
    stopped         INTEGER NOT NULL DEFAULT 0,      -- the receiver answered 410
    restarted_at    INTEGER                          -- when somebody started again what was given up
);
