//! Who stands behind the keys of a device.

use whatsapp_rust::async_trait;

/// Who runs the device that a store is for.
#[async_trait]
pub trait Owner: Send + Sync {
    /// WhatsApp hands a message over again that the library has decrypted before. Says whether it was lost, and its
    /// sender has been asked for it. `identity` is chat, sender and id.
    async fn recall(&self, identity: [String; 3]) -> bool;

    /// The library is about to tell the phone that it is linked, and has what it needs for that in its memory only.
    /// Returns when that is on the disk, or when the phone can't be told.
    async fn linking(&self);

    /// What is in the store can't be read any more. It is not used from now on.
    fn damaged(&self, why: &str);
}
