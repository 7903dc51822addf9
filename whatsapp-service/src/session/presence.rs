//! What WhatsApp is asked or told without a message: who is on it, that somebody types, that a message was read.

use crate::session::Session;
use std::time::Duration;

use tokio::time::timeout;

use crate::{
    model::address::{Names, Person},
    session::outbox::{NotTaken, Refused},
    store::referred::Referred,
    whatsapp::{
        chat::{self, ChatState},
        client::Client,
        lookup::NotLookedUp,
    },
};

/// How long WhatsApp may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum PresenceRefused {
    /// The session can't, as it is.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Too many numbers were looked up lately.
    #[error("too many numbers were looked up lately")]
    TooMany {
        /// When it may be tried again.
        wait: Duration,
    },
    /// Nobody is registered under this address.
    #[error("nobody is on WhatsApp under this address")]
    NotOnWhatsApp,
    /// The number is somebody's LID.
    #[error(transparent)]
    LidAsNumber(NotTaken),
    /// No message of this id has come in.
    #[error("the event log has no incoming message of this id")]
    UnknownMessage,
    /// WhatsApp did not take it, or said nothing.
    #[error("WhatsApp did not answer")]
    NoAnswer,
}

impl From<NotLookedUp> for PresenceRefused {
    fn from(error: NotLookedUp) -> Self {
        match error {
            NotLookedUp::TooMany(wait) => Self::TooMany { wait },
            NotLookedUp::NoAnswer => Self::NoAnswer,
        }
    }
}

impl Session {
    /// The names that WhatsApp knows each of these by; `None` for those that it does not know.
    pub async fn check_numbers(&self, people: &[Person]) -> Result<Vec<Option<Names>>, PresenceRefused> {
        let client = self.client_now()?;
        Ok(timeout(LIMIT, self.outbox.numbers.look_up(&client, people))
            .await
            .map_err(|_| PresenceRefused::NoAnswer)??)
    }

    /// Shows somebody that a text or a voice message is on its way, or no longer. Returns the names that WhatsApp knows
    /// them by.
    pub async fn show(&self, to: &Person, doing: ChatState) -> Result<Names, PresenceRefused> {
        let client = self.client_now()?;
        if let Some(field) = self.outbox.lid_among([("to", to.clone())]).await.map_err(Refused::from)? {
            return Err(PresenceRefused::LidAsNumber(NotTaken::LidAsNumber(field)));
        }
        let shown = async {
            // Whether a number is on WhatsApp can be asked by this too: it is counted like any other question.
            let names = self.outbox.numbers.look_up_one(&client, to).await?.ok_or(PresenceRefused::NotOnWhatsApp)?;
            chat::show(&client, to, &names, doing).await.map_err(|()| PresenceRefused::NoAnswer)?;
            Ok::<_, PresenceRefused>(names)
        };
        timeout(LIMIT, shown).await.map_err(|_| PresenceRefused::NoAnswer)?
    }

    /// Tells the sender of an incoming message that it was read.
    pub async fn mark_as_read(&self, id: &str) -> Result<(), PresenceRefused> {
        let found = self.store.referred(&self.tenant, id).await.map_err(Refused::from)?;
        let incoming = found.into_iter().find_map(|referred| match referred {
            Referred::Logged(logged) if !logged.from_me => Some(*logged),
            _ => None,
        });
        let logged = incoming.ok_or(PresenceRefused::UnknownMessage)?;
        let read = chat::Incoming::of(&logged).ok_or(PresenceRefused::UnknownMessage)?;
        let client = self.client_now()?;
        let told = timeout(LIMIT, read.mark_as_read(&client, id)).await;
        told.map_err(|_| PresenceRefused::NoAnswer)?.map_err(|()| PresenceRefused::NoAnswer)
    }

    fn client_now(&self) -> Result<Client, Refused> {
        self.connection
            .ready_client()
            .ok_or_else(|| Refused::not_ready(self.connection.snapshot(), self.connection.now()))
    }
}
