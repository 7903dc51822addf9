//! Linking a phone: the code that is shown, the passkey step, and what has to be on the disk before the phone hears of it.

use crate::{
    model::{address::number::Number, session_state::State},
    session::{OpenRefused, Session},
    store::devices::{Record, RecordChange},
    whatsapp::{client::Client, fact::Fact, passkey::AssertionRefused},
};
use std::time::Duration;
use tokio::time::Instant;
/// How long it may take until a new link is on the disk.
const SAVE_LIMIT: Duration = Duration::from_secs(10);

/// Why a passkey step can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyRefused {
    /// What came is not usable.
    #[error(transparent)]
    Assertion(#[from] AssertionRefused),
    /// The library refused it.
    #[error("{0}")]
    Failed(String),
}

impl Session {
    /// The phone is about to hear that it is linked: what can't be written down is not confirmed, and the connection ends.
    pub(crate) async fn linking(&self) {
        let Some(client) = self.connection.client() else { return };
        if let Err(why) = self.save_link(&client).await {
            self.apply(Fact::StorageFailed(why));
            client.disconnect().await;
        }
    }

    /// Writes the device down, and with it that this tenant is linked.
    pub(crate) async fn save_link(&self, client: &Client) -> Result<Record, String> {
        let given_up = Instant::now() + SAVE_LIMIT;
        loop {
            client.flush().await?;
            let known = self.store.recorded(&self.tenant).await.map_err(|error| error.to_string())?;
            if known.paired {
                return Ok(known);
            }
            if Instant::now() > given_up {
                return Err(format!("The device was not written down within {SAVE_LIMIT:?}."));
            }
            // The library's own saver is at it: then there was nothing left to do here, and it is not yet done.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Writes the credentials and ratchets to disk, and to whom this tenant is linked.
    pub(crate) async fn make_durable(&self, client: &Client) -> Result<(), String> {
        let known = self.save_link(client).await?;
        client.flush_keys().await?;
        let phone = client.phone();
        if known.phone == phone && known.hold.is_none() {
            return Ok(());
        }
        let linked = vec![RecordChange::Linked(phone), RecordChange::Hold(None)];
        self.store.change_record(&self.connection.lease, linked).await.map_err(|error| error.to_string())
    }

    /// Whether it was linked when that was last written down. What can't be read may well be.
    pub(crate) async fn is_recorded_as_paired(&self) -> bool {
        self.store.recorded(&self.tenant).await.map_or(true, |record| record.paired)
    }

    /// Sees to it that a code for this phone is shown, or will be, and says whether that was not so before.
    pub(crate) fn want_code(&self, phone: Number, state: State) -> Result<bool, OpenRefused> {
        let mut code_for = self.code_for.lock();
        match &*code_for {
            Some((other, _)) if *other != phone => return Err(OpenRefused::CodeForAnotherPhone),
            Some(_) => return Ok(false),
            None => {}
        }
        // Without a QR code on the screen the server is not ready to be asked; the next one will be the sign.
        let client = self.connection.client();
        let ready = client.filter(|_| state == State::PairingQr);
        *code_for = Some((phone.clone(), ready.is_some()));
        if let Some(client) = ready {
            client.request_code(&phone);
        }
        Ok(true)
    }

    /// Hands the client the passkey assertion that it waits for.
    pub fn submit_passkey(&self, credential: &serde_json::Value) -> Result<(), PasskeyRefused> {
        let live = self.connection.live.lock().clone().ok_or(AssertionRefused::NotAsked)?;
        Ok(live.authenticator.submit(credential)?)
    }

    /// Tells the client that the person saw the same code on the phone.
    pub async fn confirm_passkey(&self) -> Result<(), PasskeyRefused> {
        let live = self.connection.live.lock().clone().ok_or(AssertionRefused::NotAsked)?;
        if !self.connection.snapshot.borrow().passkey.as_ref().is_some_and(|passkey| passkey.needs_confirmation) {
            return Err(AssertionRefused::NotAsked.into());
        }
        live.client.confirm_passkey().await.map_err(PasskeyRefused::Failed)
    }
}
