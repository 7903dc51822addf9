-- Encryption at rest. One row if the values are sealed, and none if they are plain: what shows which key it was.
-- Sealed values are bytes, also in columns that are declared as TEXT; plain ones are text or bytes. See seal.rs.
CREATE TABLE sealing (proof BLOB NOT NULL);
