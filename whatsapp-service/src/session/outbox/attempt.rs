//! One attempt to send one message, and what came of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    model::{address::Person, content::Content, message::Message},
    session::outbox::Outbox,
    store::referred::Referred,
    whatsapp::{
        client::Client,
        lookup,
        send::{self, Recipient, Sending, Unsent},
    },
};

/// How many people are looked up at most before a message leaves that could be for one of them.
const STRANGERS: usize = 16;
/// How long that may take.
const STRANGERS_LIMIT: Duration = Duration::from_secs(5);

impl Outbox {
    /// Finds out whom a message is for, until `deadline` at most, and no longer than the connection lasts. By then the queue
    /// knows all their names, and the message shows them.
    pub(crate) async fn find(&self, message: &Message, deadline: Instant) -> Result<Recipient, Unsent> {
        let client = self.sender_of(message)?;
        let to = Person::kept(&message.recipient).ok_or(Unsent::NotOnWhatsApp)?;
        let found = tokio::select! {
            found = timeout_at(deadline, self.look_for(&client, &to, message.row)) => found,
            () = self.connection.lost() => return Err(Unsent::NotReady),
        };
        let found = found.unwrap_or(Err(Unsent::NotSent))?;
        self.join(&to, &found.names);
        if !message.shows(&found.names) {
            // Before it leaves, so before any receipt can be. The message can be sent without it.
            let _ = self.store.names(&self.connection.lease, &message.id, found.names.clone()).await;
        }
        Ok(found)
    }

    async fn look_for(&self, client: &Client, to: &Person, row: i64) -> Result<Recipient, Unsent> {
        let names = self.numbers.resolve(client, to).await.map_err(|_| Unsent::NotSent)?;
        let names = names.ok_or(Unsent::NotOnWhatsApp)?;
        let mut found = Recipient::find(client, to, names).await?;
        if found.names.number.is_none() {
            // One of the numbers that messages before this one go to may be theirs.
            let _ = timeout(STRANGERS_LIMIT, self.look_at_strangers(client, row)).await;
            found.names = lookup::with_learned(client, found.names).await;
        }
        Ok(found)
    }

    /// Asks for the names of those to whom earlier messages go by numbers of which nothing else is known yet. Who is asked
    /// for already is not asked for twice.
    async fn look_at_strangers(&self, client: &Client, row: i64) {
        let strangers = self.queue.lock().strangers_before(row, STRANGERS);
        for stranger in &strangers {
            if let Ok(Some(names)) = self.numbers.resolve(client, stranger).await {
                self.join(stranger, &names);
            }
        }
    }

    /// The client to send a message with.
    fn sender_of(&self, message: &Message) -> Result<Client, Unsent> {
        let client = self.connection.ready_client().ok_or(Unsent::NotReady)?;
        send::account_of(&client, message.account.as_deref())?;
        Ok(client)
    }

    /// Sends what a message says under its id, from its account if one is named, and waits for the server to acknowledge
    /// it: until `deadline` at most, and no longer than the connection lasts. `fresh` asks the server for the recipient's
    /// devices anew. Returns when the server took it, by its own clock.
    pub(crate) async fn attempt(
        &self,
        message: &Message,
        to: &Recipient,
        content: &Content,
        fresh: bool,
        deadline: Instant,
    ) -> Result<DateTime<Utc>, Unsent> {
        let client = self.sender_of(message)?;
        let lost = self.connection.lost();
        let referred = self.referred(content, &to.names).await.map_err(|_| Unsent::NotSent)?;
        let said_before = match (&content.reply_to, &referred) {
            (Some(id), Some(Referred::Own(_))) => self.said_before(&to.names, id).await,
            _ => None,
        };
        let timer = self.timers.of(|| to.chats(&client)).await.map_err(|_| Unsent::NotSent)?;
        let sending = Sending {
            id: &message.id,
            account: message.account.as_deref(),
            to,
            content,
            accepted_at: message.accepted_at,
            referred: referred.as_ref(),
            said_before,
            timer,
            fresh,
        };
        let taken = send::send(&client, &self.connection.mailbox, sending, deadline, lost).await?;
        Ok(taken.unwrap_or_else(|| self.connection.now()))
    }
}
