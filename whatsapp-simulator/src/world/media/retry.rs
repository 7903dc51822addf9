//! A companion that finds a file expired asks its phone to upload it again: the two stanzas' secrets.

use hkdf::Hkdf;
use sha2::Sha256;
use wacore_libsignal::crypto::{aes_256_gcm_decrypt, aes_256_gcm_encrypt};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

const INFO: &[u8] = b"WhatsApp Media Retry Notification";

/// A request of a companion, and what the answer repeats.
#[derive(Clone, Debug)]
pub(crate) struct Reupload {
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) iv: Vec<u8>,
    /// The `rmr` child: which chat, and whose message.
    pub(crate) about: wacore_binary::Node,
}

fn key(media_key: &[u8]) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(None, media_key).expand(INFO, &mut key).ok()?;
    Some(key)
}

/// Whether the request was written by someone who knows the media key, and is about this message.
pub(crate) fn is_genuine(request: &Reupload, media_key: &[u8], id: &str) -> bool {
    let (Some(key), Ok(iv)) = (key(media_key), <&[u8; 12]>::try_from(request.iv.as_slice())) else { return false };
    let mut plain = Vec::new();
    aes_256_gcm_decrypt(&key, iv, id.as_bytes(), &request.ciphertext, &mut plain).is_ok()
        && wa::ServerErrorReceipt::decode_from_slice(&plain).is_ok_and(|r| r.stanza_id.as_deref() == Some(id))
}

/// Tells the companion where the file is now: ciphertext and IV.
pub(crate) fn answer(media_key: &[u8], id: &str, direct_path: String) -> Option<(Vec<u8>, [u8; 12])> {
    let notification = wa::MediaRetryNotification {
        stanza_id: Some(id.to_owned()),
        direct_path: Some(direct_path),
        result: Some(wa::media_retry_notification::ResultType::SUCCESS),
        ..Default::default()
    };
    let iv: [u8; 12] = rand::random();
    let mut ciphertext = Vec::new();
    aes_256_gcm_encrypt(&key(media_key)?, &iv, id.as_bytes(), &notification.encode_to_vec(), &mut ciphertext).ok()?;
    Some((ciphertext, iv))
}
