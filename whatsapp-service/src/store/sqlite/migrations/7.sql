-- How many seconds there were in which something was written: the mark beside the database has this number too.
ALTER TABLE instance ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

-- A clock that was put back leaves messages that are older than those before them: they are looked for by their times.
DROP INDEX messages_by_tenant;
CREATE INDEX messages_by_tenant ON messages (tenant, row, accepted_at);
