//! What the settings say about what is kept.

/// What the settings say about what is kept.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Whether the text of a message is kept when it is no longer needed.
    pub keep_bodies: bool,
    /// Whether there is a webhook for all tenants.
    pub webhook_for_all: bool,
}
