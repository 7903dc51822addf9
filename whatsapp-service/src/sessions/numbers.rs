//! Which numbers are on WhatsApp, and under which form: always the server's word, remembered for a while.
//!
//! Looking numbers up in bulk can get an account banned, so no number is asked for twice in a short time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use whatsapp_rust::{Client, IsOnWhatsAppResult, Jid};

use super::recipient::Recipient;

/// How long a number that is registered stays so, as far as we care.
const REGISTERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a number that is not registered is not asked for again.
const UNREGISTERED_FOR: Duration = Duration::from_secs(5 * 60);
/// How many numbers a session remembers.
const CAPACITY: usize = 10_000;

/// What one session knows of numbers.
#[derive(Default)]
pub struct Numbers {
    known: Mutex<HashMap<Recipient, (Option<Jid>, Instant)>>,
}

impl Numbers {
    /// The address that WhatsApp has for `to`; `None` where nobody is registered under any of its forms.
    pub async fn resolve(&self, client: &Client, to: &Recipient) -> Result<Option<Jid>, String> {
        if let Some(known) = self.recall(to) {
            return Ok(known);
        }
        let mut found = look_up(client, to.digits()).await?;
        if found.is_none()
            && let Some(other) = to.other_form()
        {
            found = look_up(client, &other).await?;
        }
        self.remember(to, found.clone());
        Ok(found)
    }

    fn recall(&self, to: &Recipient) -> Option<Option<Jid>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (jid, since) = known.get(to)?;
        let lifetime = if jid.is_some() { REGISTERED_FOR } else { UNREGISTERED_FOR };
        (since.elapsed() < lifetime).then(|| jid.clone())
    }

    fn remember(&self, to: &Recipient, jid: Option<Jid>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            // Rare enough that forgetting everything costs less than keeping order.
            known.clear();
        }
        known.insert(to.clone(), (jid, Instant::now()));
    }
}

async fn look_up(client: &Client, digits: &str) -> Result<Option<Jid>, String> {
    let answers = client.contacts().is_on_whatsapp(&[Jid::pn(digits)]).await.map_err(|error| error.to_string())?;
    match answers.into_iter().next() {
        None => Ok(None),
        Some(IsOnWhatsAppResult { contact_error: Some(error), .. }) => Err(format!("{error:?}")),
        Some(answer) if !answer.is_registered => Ok(None),
        Some(answer) => Ok(Some(if answer.jid.is_lid() { answer.pn_jid.unwrap_or(answer.jid) } else { answer.jid })),
    }
}
