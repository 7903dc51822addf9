//! More than text: every kind both ways between a real client and a phone, and the media host when it misbehaves.

mod kinds;
mod trouble;

use whatsapp_rust::UploadOptions;
use whatsapp_rust::wacore::download::MediaType;
use whatsapp_rust::wacore::upload::EncryptedMediaInfo;
use whatsapp_rust::waproto::whatsapp as wa;

use crate::client::TestClient;

/// A document that a client has uploaded.
async fn document(client: &TestClient, bytes: &[u8]) -> wa::message::DocumentMessage {
    let file = client.client.upload(bytes.to_vec(), MediaType::Document, UploadOptions::new()).await.unwrap();
    wa::message::DocumentMessage {
        url: Some(file.url),
        direct_path: Some(file.direct_path),
        media_key: Some(file.media_key.to_vec()),
        file_sha256: Some(file.file_sha256.to_vec()),
        file_enc_sha256: Some(file.file_enc_sha256.to_vec()),
        file_length: Some(file.file_length),
        mimetype: Some("application/pdf".to_owned()),
        file_name: Some("plan.pdf".to_owned()),
        ..Default::default()
    }
}

/// Encrypts a file as a service does that keeps it on its disk.
fn encrypted(bytes: &[u8]) -> (Vec<u8>, EncryptedMediaInfo) {
    let mut encrypted = Vec::new();
    let info = whatsapp_rust::wacore::upload::encrypt_media_streaming(bytes, &mut encrypted, MediaType::Document);
    (encrypted, info.unwrap())
}
