//! A file that WhatsApp no longer has: the account's phone is asked to upload it again.

use whatsapp_rust::{
    Jid, MediaRetryResult, NodeFilter,
    wacore::media_retry::{build_media_retry_receipt, encrypt_media_retry_receipt, parse_media_retry_notification},
};

use crate::{
    store::kept::{Kept, MediaSource},
    whatsapp::client::Client,
};

/// Asks the account's phone for a file, and says where it is then; nothing if the phone does not have it. It may take for
/// ever: the phone may be off.
pub async fn ask_phone(client: &Client, kept: &Kept, source: &MediaSource) -> Option<String> {
    let client = client.library();
    let (chat, sender) = (kept.chat.parse::<Jid>().ok()?, kept.sender.parse::<Jid>().ok()?);
    // In a group it has to be said who wrote it.
    let participant = (chat.user != sender.user && !kept.from_me).then_some(&sender);
    // The library's own request goes to this device of the account, and not to its phone.
    let phone = client.pn()?.to_non_ad();
    let (sealed, iv) = encrypt_media_retry_receipt(&source.key, &kept.id).ok()?;
    let request = build_media_retry_receipt(&phone, &kept.id, &chat, kept.from_me, participant, &sealed, &iv);
    let filter = NodeFilter::tag("notification").attr("type", "mediaretry").attr("id", kept.id.as_str());
    // Before it is asked: the answer may come at once.
    let answer = client.wait_for_node(filter);
    client.send_node(request).await.ok()?;
    match parse_media_retry_notification(answer.await.ok()?.get(), &source.key).ok()? {
        MediaRetryResult::Success { direct_path } => Some(direct_path),
        _ => None,
    }
}
