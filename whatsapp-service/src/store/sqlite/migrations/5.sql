-- Incoming messages are found by their ids: to answer them, to react to them, to mark them as read. Those that came before
-- this have none here.
ALTER TABLE received ADD COLUMN id TEXT;          -- WhatsApp's
ALTER TABLE received ADD COLUMN sequence INTEGER; -- the event that tells of it
CREATE INDEX received_by_id ON received (tenant, id) WHERE sequence IS NOT NULL;

-- What a message is, also when what it says is gone; NULL: a text.
ALTER TABLE messages ADD COLUMN kind TEXT;
