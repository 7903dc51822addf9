//! What the other side of a chat is shown without a message: that somebody types, that a message was read.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use whatsapp_rust::{ChatStateType, Jid, wacore_binary::JidExt};

use crate::{
    model::address::{Names, Person},
    store::referred::Logged,
    whatsapp::{client::Client, lookup},
};

/// What somebody is doing in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChatState {
    /// Writing a text.
    Typing,
    /// Recording a voice message.
    Recording,
    /// Neither any more.
    Paused,
}

/// Shows somebody what is being done in the chat with them.
///
/// # Errors
/// WhatsApp did not accept it.
pub async fn show(client: &Client, to: &Person, names: &Names, doing: ChatState) -> Result<(), ()> {
    let state = match doing {
        ChatState::Typing => ChatStateType::Composing,
        ChatState::Recording => ChatStateType::Recording,
        ChatState::Paused => ChatStateType::Paused,
    };
    client.library().chatstate().send(&lookup::jid(to, names), state).await.map(drop).map_err(drop)
}

/// Where an incoming message was written, and by whom.
pub struct Incoming {
    chat: Jid,
    author: Option<Jid>,
}

impl Incoming {
    /// From the event log; nothing if its chat can't be read.
    pub fn of(logged: &Logged) -> Option<Self> {
        let chat: Jid = logged.chat.parse().ok()?;
        // Whoever wrote it is the chat, unless several people write there.
        let by_lid = || logged.from_lid.as_ref().map(Jid::lid);
        let author = chat.is_group().then(|| by_lid().or_else(|| logged.from.as_ref().map(Jid::pn))).flatten();
        Some(Self { chat, author })
    }

    /// Tells its sender that it was read.
    ///
    /// # Errors
    /// WhatsApp did not accept it.
    pub async fn mark_as_read(&self, client: &Client, id: &str) -> Result<(), ()> {
        client.library().mark_as_read(&self.chat, self.author.as_ref(), &[id]).await.map(drop).map_err(drop)
    }
}
