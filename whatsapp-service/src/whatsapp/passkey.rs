//! The passkey that WhatsApp may ask for while it links a device (rolled out since mid-2026).
//!
//! The library asks an authenticator for a WebAuthn assertion. A server has none: the customer's own page or app makes
//! the assertion from the server's options, which `/status` carries, and `POST /session/passkey` brings it here.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use whatsapp_rust::{
    async_trait,
    passkey::{Assertion, AssertionRequest, PasskeyAuthenticator, PasskeyError},
};

/// How long a person may take where the server's options don't say.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why an assertion can't be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AssertionRefused {
    /// WhatsApp did not ask for a passkey, or not any more.
    #[error("no passkey is asked for")]
    NotAsked,
    /// It is not what `navigator.credentials.get` gives.
    #[error("{0}")]
    Malformed(String),
}

/// Hands the library the assertion that a person's own device made.
#[derive(Default)]
pub struct RemoteAuthenticator {
    waiting: Mutex<Option<oneshot::Sender<Assertion>>>,
}

impl RemoteAuthenticator {
    /// Takes the JSON of a `PublicKeyCredential` and lets the linking go on.
    pub fn submit(&self, credential: &serde_json::Value) -> Result<(), AssertionRefused> {
        let assertion = parse(credential)?;
        let waiting = self.lock().take().ok_or(AssertionRefused::NotAsked)?;
        waiting.send(assertion).map_err(|_| AssertionRefused::NotAsked)
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, Option<oneshot::Sender<Assertion>>> {
        self.waiting.lock()
    }
}

#[async_trait]
impl PasskeyAuthenticator for RemoteAuthenticator {
    async fn get_assertion(&self, request: &AssertionRequest) -> Result<Assertion, PasskeyError> {
        let (sender, assertion) = oneshot::channel();
        *self.lock() = Some(sender);
        let patience = request.timeout_ms.map_or(PATIENCE, Duration::from_millis);
        match tokio::time::timeout(patience, assertion).await {
            Ok(Ok(assertion)) => Ok(assertion),
            Ok(Err(_)) | Err(_) => Err(PasskeyError::Cancelled),
        }
    }
}

/// Reads a credential as browsers serialise it: `{id, rawId, type, response: {clientDataJSON, …}}`, base64url without
/// padding. The library passes the JSON on as it is, so what must be in it is checked here.
fn parse(credential: &serde_json::Value) -> Result<Assertion, AssertionRefused> {
    let text = |pointer: &str| {
        let missing = || AssertionRefused::Malformed(format!("the assertion has no text at {pointer}"));
        credential.pointer(pointer).and_then(serde_json::Value::as_str).ok_or_else(missing)
    };
    if text("/type")? != "public-key" {
        return Err(AssertionRefused::Malformed("the assertion's type is not public-key".into()));
    }
    let decode = |pointer: &str| {
        let malformed = |_| AssertionRefused::Malformed(format!("{pointer} is not base64url without padding"));
        BASE64_URL_SAFE_NO_PAD.decode(text(pointer)?).map_err(malformed)
    };
    for pointer in ["/response/clientDataJSON", "/response/authenticatorData", "/response/signature"] {
        decode(pointer)?;
    }
    let credential_id = decode("/rawId").or_else(|_| decode("/id"))?;
    Ok(Assertion { assertion_json: credential.to_string().into_bytes(), credential_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use whatsapp_rust::passkey::parse_request_options;

    fn credential() -> Value {
        let response =
            json!({"clientDataJSON": "e30", "authenticatorData": "AAAA", "signature": "c2ln", "userHandle": null});
        json!({"id": "Y3JlZA", "rawId": "Y3JlZA", "type": "public-key", "response": response})
    }

    fn request(options: &str) -> AssertionRequest {
        parse_request_options(options).unwrap()
    }

    #[tokio::test]
    async fn the_assertion_reaches_the_library_as_it_was_made() {
        let authenticator = Arc::new(RemoteAuthenticator::default());
        assert_eq!(authenticator.submit(&credential()), Err(AssertionRefused::NotAsked));
        let library = tokio::spawn({
            let authenticator = authenticator.clone();
            async move { authenticator.get_assertion(&request(r#"{"challenge":"AAAA"}"#)).await }
        });
        while authenticator.lock().is_none() {
            tokio::task::yield_now().await;
        }
        authenticator.submit(&credential()).unwrap();
        let assertion = library.await.unwrap().unwrap();
        assert_eq!(assertion.credential_id, b"cred");
        assert_eq!(serde_json::from_slice::<Value>(&assertion.assertion_json).unwrap(), credential());
        assert_eq!(authenticator.submit(&credential()), Err(AssertionRefused::NotAsked), "it is used once");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_server_does() {
        let authenticator = RemoteAuthenticator::default();
        let asked = request(r#"{"challenge":"AAAA","timeout":60000}"#);
        assert!(matches!(authenticator.get_assertion(&asked).await, Err(PasskeyError::Cancelled)));
        assert_eq!(authenticator.submit(&credential()), Err(AssertionRefused::NotAsked));
    }

    #[test]
    fn says_what_is_wrong_with_an_assertion() {
        for (pointer, value) in [
            ("/type", json!("password")),
            ("/response/signature", json!("not base64url!")),
            ("/response/clientDataJSON", Value::Null),
        ] {
            let mut wrong = credential();
            *wrong.pointer_mut(pointer).unwrap() = value;
            assert!(matches!(parse(&wrong), Err(AssertionRefused::Malformed(_))), "{pointer}");
        }
        assert!(matches!(parse(&json!("text")), Err(AssertionRefused::Malformed(_))));
    }
}
