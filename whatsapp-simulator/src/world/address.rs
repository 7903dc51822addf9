//! Who is who: accounts, their devices, and the two names that each of them has on the wire.

use wacore_binary::{Jid, Server};

/// An account's place in the world. Accounts are never removed, so it stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AccountId(pub(crate) u32);

/// One device of an account. Device 0 is the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) account: AccountId,
    pub(crate) device: u16,
}

impl Address {
    pub(crate) const fn new(account: AccountId, device: u16) -> Self {
        Self { account, device }
    }

    /// The device that is the account itself.
    pub(crate) const fn phone(account: AccountId) -> Self {
        Self::new(account, 0)
    }
}

/// The two families of names for one person: the phone number, and the "linked identity" that hides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `5511999999999@s.whatsapp.net`
    Pn,
    /// `123456789012345@lid`
    Lid,
}

impl Addressing {
    /// The family that a JID belongs to, if it names a person at all.
    pub(crate) fn of(jid: &Jid) -> Option<Self> {
        match jid.server {
            Server::Pn | Server::Legacy => Some(Self::Pn),
            Server::Lid => Some(Self::Lid),
            _ => None,
        }
    }
}

/// Both names of an account, as the wire needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) phone: String,
    pub(crate) lid: String,
    /// Whether others are told the LID only.
    pub(crate) number_hidden: bool,
}

impl Names {
    /// The JID of one device; device 0 is written without a device part.
    pub(crate) fn device(&self, addressing: Addressing, device: u16) -> Jid {
        match addressing {
            Addressing::Pn => Jid::pn_device(self.phone.as_str(), device),
            Addressing::Lid => Jid::lid_device(self.lid.as_str(), device),
        }
    }

    /// The JID of the account.
    pub(crate) fn user(&self, addressing: Addressing) -> Jid {
        self.device(addressing, 0)
    }

    /// In which form others are told of one of its devices, who would be told in this one.
    pub(crate) fn shown(&self, addressing: Addressing) -> Addressing {
        if self.number_hidden { Addressing::Lid } else { addressing }
    }

    /// The other name beside `addressing`, as others are told it.
    pub(crate) fn other(&self, addressing: Addressing) -> Option<Jid> {
        match addressing {
            Addressing::Pn => Some(self.user(Addressing::Lid)),
            Addressing::Lid => (!self.number_hidden).then(|| self.user(Addressing::Pn)),
        }
    }
}
