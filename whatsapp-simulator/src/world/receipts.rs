//! Receipts on their way back to who wrote the message.

use wacore_binary::{Jid, Node};

use super::address::Address;
use super::faults::FaultKind;
use super::keys::Bundle;
use super::media::retry::Reupload;
use super::phone::Task;
use super::phone::message::Status;
use super::stanza::{Receipt, Stanza};
use super::{World, lock, now};

/// A receipt as a device hands it in.
#[derive(Clone, Debug)]
pub(crate) struct OutReceipt {
    pub(crate) ids: Vec<String>,
    pub(crate) to: Jid,
    pub(crate) recipient: Option<Jid>,
    pub(crate) kind: Option<String>,
    /// The children of a retry receipt.
    pub(crate) extras: Vec<Node>,
    /// How often the message was asked for, and the asker's keys, if it is a retry.
    pub(crate) retry: Option<(u8, Option<Box<Bundle>>)>,
    /// What a companion says to its phone when it found a file expired.
    pub(crate) reupload: Option<Box<Reupload>>,
}

/// Who gets a receipt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// Every device of the author, as the ticks are shown on all of them.
    Everyone(Status),
    /// The one device that it is addressed to.
    Addressee,
    /// It is for the server only.
    Nobody,
}

fn audience(kind: Option<&str>) -> Audience {
    match kind {
        None => Audience::Everyone(Status::Delivered),
        Some("read") => Audience::Everyone(Status::Read),
        Some("played") => Audience::Everyone(Status::Played),
        Some("retry" | "inactive" | "sender" | "server-error") => Audience::Addressee,
        Some(_) => Audience::Nobody,
    }
}

impl World {
    /// Takes a receipt in and passes it on. The message that it is about has arrived and leaves the queue. Only one that
    /// asks for the message again leaves it there: an acknowledgement follows when the asking is done.
    pub(crate) fn accept_receipt(&self, from: Address, receipt: OutReceipt) {
        let retry = receipt.retry.is_some();
        self.count(from, |c| if retry { &c.retry_receipts } else { &c.receipts });
        let mut state = lock(&self.state);
        let forgotten = self.forgets_confirmations(&state, from);
        if !retry
            && !forgotten
            && let Some(companion) = state.companion_mut(from)
        {
            receipt.ids.iter().for_each(|id| companion.line.has_message(id));
        }
        let Some((account, addressing)) = state.resolve(&receipt.to) else { return };
        let Some(names) = state.account(from.account).map(|a| a.names.clone()) else { return };
        let Some(author) = state.account_mut(account) else { return };
        // Who asks for a message is no receipt in the sense of the fault: nobody would ever know of it.
        let dropped = |k: &FaultKind| (*k == FaultKind::DropReceipts && !retry).then_some(());
        if self.faults.take(Some(&author.number), dropped).is_some() {
            return;
        }
        let passed_on = Stanza::Receipt(Receipt {
            ids: receipt.ids.clone(),
            from: names.device(if account == from.account { addressing } else { names.shown(addressing) }, from.device),
            recipient: receipt.recipient,
            kind: receipt.kind.clone(),
            timestamp: now(),
            extras: receipt.extras,
        });
        let handset = author.handset.clone();
        let mut ticked = false;
        match audience(receipt.kind.as_deref()) {
            // Some clients write their own device here; it is the phone that has the file.
            Audience::Addressee if account == from.account && receipt.reupload.is_some() => {
                for (id, request) in receipt.ids.into_iter().zip(receipt.reupload) {
                    handset.give(Task::Reupload { device: from.device, id, request });
                }
            }
            // What one's own companions say about one's own messages puts no ticks on them.
            Audience::Everyone(_) if account == from.account => {}
            Audience::Everyone(status) => {
                author.companions.values_mut().for_each(|c| c.line.deliver(passed_on.clone()));
                ticked = lock(&handset.chat).tick(&receipt.ids, status);
            }
            Audience::Addressee if receipt.to.device == 0 => {
                if let Some((attempt, bundle)) = receipt.retry {
                    handset.give(Task::Resend { ids: receipt.ids, to: from, attempt, bundle });
                }
            }
            Audience::Addressee => {
                if let Some(companion) = author.companions.get_mut(&receipt.to.device) {
                    companion.line.deliver(passed_on);
                }
            }
            Audience::Nobody => {}
        }
        drop(state);
        self.work(account);
        if ticked {
            self.changed();
        }
    }
}
