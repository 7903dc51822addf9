-- When it was known that the recipient has listened to a voice note.
ALTER TABLE messages ADD COLUMN played_at INTEGER;
