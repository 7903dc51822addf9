-- Messages are found by the names that their callers have for them.
CREATE INDEX messages_by_reference ON messages (tenant, reference, row) WHERE reference IS NOT NULL;
