//! What the callers were told about each message.

use std::sync::Mutex;
use std::time::Instant;

use crate::run::lock;

/// What came of handing a message in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing that settles it.
    Nothing,
    /// Accepted under this id, by an answer that was there at this time.
    Accepted { id: String, at: Instant },
    /// Not accepted.
    Refused,
}

/// A message that was handed in.
#[derive(Clone, Debug)]
pub struct Message {
    /// Index of the tenant.
    pub tenant: usize,
    /// Index of the recipient.
    pub recipient: usize,
    /// When it was first handed in.
    pub submitted: Instant,
    /// What came of it.
    pub told: Told,
}

/// The messages, in the order in which they were handed in. Their texts and keys follow from their numbers.
#[derive(Default)]
pub struct Ledger(Mutex<Vec<Message>>);

impl Ledger {
    /// A message is about to be handed in. Its number.
    pub fn submit(&self, tenant: usize, recipient: usize) -> usize {
        let mut messages = lock(&self.0);
        messages.push(Message { tenant, recipient, submitted: Instant::now(), told: Told::Nothing });
        messages.len() - 1
    }

    /// A message was accepted.
    ///
    /// # Errors
    /// The id that was told before, which is another one.
    pub fn accept(&self, n: usize, id: &str) -> Result<(), String> {
        let told = &mut lock(&self.0)[n].told;
        match told {
            Told::Accepted { id: before, .. } if before != id => Err(before.clone()),
            Told::Accepted { .. } => Ok(()),
            _ => {
                *told = Told::Accepted { id: id.to_owned(), at: Instant::now() };
                Ok(())
            }
        }
    }

    /// A message was refused.
    pub fn refuse(&self, n: usize) {
        lock(&self.0)[n].told = Told::Refused;
    }

    /// How many were handed in.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Everything, as it is now.
    pub fn all(&self) -> Vec<Message> {
        lock(&self.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_id() {
        let ledger = Ledger::default();
        let n = ledger.submit(3, 7);
        assert_eq!(ledger.accept(n, "A"), Ok(()));
        assert_eq!(ledger.accept(n, "A"), Ok(()));
        assert_eq!(ledger.accept(n, "B"), Err("A".into()));
    }
}
