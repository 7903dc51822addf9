//! Which numbers are on WhatsApp, and under which form: always the server's word, remembered for a while.
//!
//! Looking numbers up in bulk can get an account banned, so no number is asked for twice in a short time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;
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
    known: Mutex<HashMap<Recipient, Arc<OnceCell<Known>>>>,
}

#[derive(Clone)]
struct Known {
    /// `None`: nobody is registered under this number.
    jid: Option<Jid>,
    since: Instant,
}

impl Numbers {
    /// The address that WhatsApp has for `to`; `None` where nobody is registered under any of its forms. Callers that
    /// ask for the same number at the same time share one look-up; one that failed is not remembered.
    pub async fn resolve(&self, client: &Client, to: &Recipient) -> Result<Option<Jid>, String> {
        let known = self.entry(to);
        let found = known.get_or_try_init(async || {
            let mut jid = look_up(client, to.digits()).await?;
            if jid.is_none()
                && let Some(other) = to.other_form()
            {
                jid = look_up(client, &other).await?;
            }
            Ok::<_, String>(Known { jid, since: Instant::now() })
        });
        Ok(found.await?.jid.clone())
    }

    fn entry(&self, to: &Recipient) -> Arc<OnceCell<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            // Rare enough that forgetting everything costs less than keeping order.
            known.clear();
        }
        let entry = known.entry(to.clone()).or_default();
        if entry.get().is_some_and(Known::is_old) {
            *entry = Arc::default();
        }
        entry.clone()
    }
}

impl Known {
    fn is_old(&self) -> bool {
        let lifetime = if self.jid.is_some() { REGISTERED_FOR } else { UNREGISTERED_FOR };
        self.since.elapsed() >= lifetime
    }
}

async fn look_up(client: &Client, digits: &str) -> Result<Option<Jid>, String> {
    let answers = client.contacts().is_on_whatsapp(&[Jid::pn(digits)]).await.map_err(|error| error.to_string())?;
    match answers.into_iter().next() {
        None => Err("the server did not answer for this number".into()),
        Some(IsOnWhatsAppResult { contact_error: Some(error), .. }) => Err(format!("{error:?}")),
        Some(answer) if !answer.is_registered => Ok(None),
        Some(answer) => Ok(Some(if answer.jid.is_lid() { answer.pn_jid.unwrap_or(answer.jid) } else { answer.jid })),
    }
}
