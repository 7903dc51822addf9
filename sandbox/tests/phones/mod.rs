//! A simulator's phones, through its control API: what they show, and what they are made to send.

#![allow(dead_code, reason = "each test binary uses a different part of it")]

use rand::Rng as _;
use reqwest::Method;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use whatsapp_simulator::{Phone, Simulator};

use crate::client::until;

/// A client for HTTP. The service's way out brings TLS into this build, which then wants to be told whose arithmetic to
/// use; nothing here is reached by TLS.
pub fn http() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap()
}

/// A call of the control API: the status and the answer.
pub async fn admin(simulator: &Simulator, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let request = http().request(method, format!("{}{path}", simulator.http_url()));
    let request = if let Some(body) = &body { request.json(body) } else { request };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// Lets a phone send something, and returns the message's id.
pub async fn phone_sends(simulator: &Simulator, phone: &Phone, to: &Phone, mut body: Value) -> String {
    body["to"] = to.as_str().into();
    let (status, answer) =
        admin(simulator, Method::POST, &format!("/admin/accounts/{phone}/messages"), Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    answer["id"].as_str().unwrap().to_owned()
}

/// What a phone shows under an id, once it is there.
pub async fn on(simulator: &Simulator, phone: &Phone, id: &str) -> Value {
    until("a message on the phone", || {
        let messages = simulator.world().messages(phone).unwrap();
        messages.iter().any(|m| m.id == id).then_some(()).ok_or_else(|| format!("{messages:#?}"))
    })
    .await;
    shown(simulator, phone, id).await
}

/// What a phone shows under an id now.
pub async fn shown(simulator: &Simulator, phone: &Phone, id: &str) -> Value {
    let (_, messages) = admin(simulator, Method::GET, &format!("/admin/accounts/{phone}/messages"), None).await;
    messages.as_array().unwrap().iter().find(|m| m["id"] == id).cloned().unwrap_or_else(|| panic!("{messages:#}"))
}

/// The file of a message, as the phone has it: its MIME type and its bytes.
pub async fn file_on(simulator: &Simulator, phone: &Phone, id: &str) -> (String, Vec<u8>) {
    let url = format!("{}/admin/accounts/{phone}/messages/{id}/media", simulator.http_url());
    let answer = http().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mimetype = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (mimetype, answer.bytes().await.unwrap().to_vec())
}

/// Bytes that nobody has seen before.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// The SHA-256 of some bytes, as the control API writes it.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
