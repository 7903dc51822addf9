//! What the callers were told about each message.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sandbox::answer::Fate;

/// An answer that accepts a message.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The message's id.
    pub id: String,
    /// When the answer was there.
    pub at: Instant,
    /// The furthest that was told so far.
    pub fate: Fate,
}

/// What is known about one message.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// When it was first handed in.
    pub submitted: Option<Instant>,
    /// The answer that accepted it.
    pub accepted: Option<Accepted>,
}

/// The messages, in the order of the plan.
pub struct Ledger(Mutex<Vec<Told>>);

impl Ledger {
    /// Nothing is told of so many messages.
    pub fn new(messages: usize) -> Self {
        Self(Mutex::new(vec![Told::default(); messages]))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message is about to be handed in, perhaps not for the first time.
    pub fn submit(&self, n: usize) {
        self.lock()[n].submitted.get_or_insert_with(Instant::now);
    }

    /// A message was accepted.
    ///
    /// # Errors
    /// The id that was told before, which is another one.
    pub fn accept(&self, n: usize, id: &str, fate: Fate) -> Result<(), String> {
        let told = &mut self.lock()[n];
        let accepted = told.accepted.get_or_insert_with(|| Accepted { id: id.to_owned(), at: Instant::now(), fate });
        accepted.fate = accepted.fate.max(fate);
        if accepted.id == id { Ok(()) } else { Err(accepted.id.clone()) }
    }

    /// A message's fate was told again.
    pub fn tell(&self, n: usize, fate: Fate) {
        if let Some(accepted) = &mut self.lock()[n].accepted {
            accepted.fate = accepted.fate.max(fate);
        }
    }

    /// The answer that accepted a message.
    pub fn accepted(&self, n: usize) -> Option<Accepted> {
        self.lock()[n].accepted.clone()
    }

    /// Everything, as it is now.
    pub fn all(&self) -> Vec<Told> {
        self.lock().clone()
    }
}
