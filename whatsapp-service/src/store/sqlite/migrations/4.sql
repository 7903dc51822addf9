-- The file of DATA_DIR/media that a message needs until it was sent; NULL: none. What the file needs to be read stands in
-- the message's content.
ALTER TABLE messages ADD COLUMN media TEXT;
CREATE INDEX messages_by_media ON messages (media) WHERE media IS NOT NULL AND pending = 1;
