-- The recipient's LID, where it is known: WhatsApp's other name for them. `recipient` is digits, or a LID with `@lid` behind
-- it. What a message says is sealed with its recipient too from here on; see schema.rs.
ALTER TABLE messages ADD COLUMN lid TEXT;
