//! Unpaired connections, and the two ways in which a phone takes them in: a QR code or an eight-character code.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use tokio::sync::oneshot;
use wacore_binary::Jid;

use super::accounts::{AccountError, Companion};
use super::address::{AccountId, Address, Addressing};
use super::faults::FaultKind;
use super::keys::{DeviceKeys, Key};
use super::numbers::{InvalidPhone, Phone};
use super::phone::code::{CodeError, PairCode, PrimaryHello, is_wrapped_key};
use super::phone::linking::{Endorsement, LinkingError};
use super::qr::QrText;
use super::queue::{Line, Link};
use super::stanza::Stanza;
use super::{World, lock, now};
use crate::wire::pairing as wire;

/// How long a companion may take to confirm.
const CONFIRMATION: Duration = Duration::from_secs(15);

/// A companion that a phone took in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Linked {
    /// The account's number.
    pub phone: Phone,
    /// The companion's device number.
    pub device: u16,
}

/// Why a phone could not take a companion in.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The text is not of a linking QR code.
    #[error("this is not a WhatsApp linking QR code")]
    NotAQr,
    /// No connection waits with this ref: it is over, expired, or never was.
    #[error("the QR code is no longer valid")]
    Stale,
    /// The code was made by another device than the one that waits with its ref.
    #[error("the QR code does not belong to the connection that its ref names")]
    Foreign,
    /// There is no such account.
    #[error("there is no account with this number")]
    NoAccount,
    /// The phone is switched off.
    #[error("the phone is switched off")]
    PhoneOff,
    /// No companion waits for a code of this phone.
    #[error("no companion waits for a pairing code of this phone")]
    NoCode,
    /// The code is wrong.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The companion refused, or went away.
    #[error("the companion did not confirm")]
    NotConfirmed,
    /// An account could not be made.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// Signing failed.
    #[error("signing the companion's identity failed")]
    Signing,
}

/// What an unpaired client says about itself.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) noise_key: Key,
    pub(crate) keys: DeviceKeys,
    pub(crate) platform: String,
}

/// Who waits for the outcome of a pairing.
type Outcome = oneshot::Sender<Result<Linked, PairError>>;

/// A companion that asked for a pairing code.
pub(super) struct CodeRequest {
    account: AccountId,
    reference: Vec<u8>,
    wrapped: Vec<u8>,
    pub(super) since: Instant,
    /// After the code was typed: the phone's keys, and who waits for the outcome.
    hello: Option<(PrimaryHello, Outcome)>,
}

/// A pairing that the companion has to confirm.
pub(super) struct Confirmation {
    at: Address,
    phone: Phone,
    key_index: u32,
    endorsement: Endorsement,
    iq: String,
    done: Outcome,
}

pub(super) struct Unpaired {
    link: Link,
    registration: Registration,
    pub(super) refs: Vec<String>,
    pub(super) expires: Instant,
    pub(super) text: Option<(String, String)>,
    pub(super) code: Option<CodeRequest>,
    pub(super) confirmation: Option<Confirmation>,
}

/// The unpaired connections, by link, and their refs.
#[derive(Default)]
pub(crate) struct Waiting {
    pub(super) connections: HashMap<u64, Unpaired>,
    refs: HashMap<String, u64>,
    /// Which connection waits for a code of which account: the newest counts.
    pub(super) codes: HashMap<AccountId, u64>,
}

impl Waiting {
    fn by_ref(&mut self, reference: &str) -> Result<&mut Unpaired, PairError> {
        let link = self.refs.get(reference).ok_or(PairError::Stale)?;
        let unpaired = self.connections.get_mut(link).ok_or(PairError::Stale)?;
        if unpaired.expires <= Instant::now() || unpaired.confirmation.is_some() {
            return Err(PairError::Stale);
        }
        Ok(unpaired)
    }
}

impl World {
    /// A client without an account connects. Returns the refs for its QR codes.
    pub(crate) fn register(&self, link: &Link, registration: Registration) -> Vec<String> {
        let refs: Vec<String> =
            (0..self.config.qr_refs).map(|_| format!("2@{}", BASE64.encode(rand::random::<[u8; 32]>()))).collect();
        let mut waiting = lock(&self.waiting);
        for reference in &refs {
            waiting.refs.insert(reference.clone(), link.id);
        }
        waiting.connections.insert(
            link.id,
            Unpaired {
                link: link.clone(),
                registration,
                refs: refs.clone(),
                expires: Instant::now() + self.config.qr_lifetime(),
                text: None,
                code: None,
                confirmation: None,
            },
        );
        drop(waiting);
        self.changed();
        refs
    }

    /// The connection of an unpaired client is gone.
    pub(crate) fn unregister(&self, link: u64) {
        {
            let mut waiting = lock(&self.waiting);
            let Some(unpaired) = waiting.connections.remove(&link) else { return };
            for reference in &unpaired.refs {
                waiting.refs.remove(reference);
            }
            waiting.codes.retain(|_, waits| *waits != link);
        }
        self.changed();
    }

    /// Whether an unpaired client is in the middle of a pairing, so that its time must not run out.
    pub(crate) fn is_pairing(&self, link: u64) -> bool {
        lock(&self.waiting).connections.get(&link).is_some_and(|u| {
            u.confirmation.is_some() || u.code.as_ref().is_some_and(|c| c.since.elapsed() < self.config.pair_code_ttl)
        })
    }

    /// Holds a QR text up to the phones, so that an onlooker can offer to scan it.
    ///
    /// # Errors
    /// [`PairError::NotAQr`] and [`PairError::Stale`].
    pub fn hold_up_qr(&self, text: &str) -> Result<(), PairError> {
        let qr = QrText::parse(text)?;
        let held = (qr.reference.clone(), text.trim().to_owned());
        lock(&self.waiting).by_ref(&qr.reference)?.text = Some(held);
        self.changed();
        Ok(())
    }

    fn switched_on(&self, phone: &Phone) -> Result<(), PairError> {
        match self.faults.peek(Some(phone), |k| (*k == FaultKind::OfflinePhone).then_some(())) {
            Some(()) => Err(PairError::PhoneOff),
            None => Ok(()),
        }
    }

    /// A phone scans a QR code. Without `phone`, an account is made. Returns when the companion has confirmed.
    ///
    /// # Errors
    /// Any [`PairError`] but those about codes.
    pub async fn scan_qr(&self, text: &str, phone: Option<&Phone>) -> Result<Linked, PairError> {
        let qr = QrText::parse(text)?;
        {
            let mut waiting = lock(&self.waiting);
            let registration = &waiting.by_ref(&qr.reference)?.registration;
            if registration.noise_key != qr.noise_key || registration.keys.identity != qr.identity {
                return Err(PairError::Foreign);
            }
        }
        let phone = match phone {
            Some(phone) => self.account(phone).ok_or(PairError::NoAccount)?.phone,
            None => self.make_up_account()?,
        };
        self.switched_on(&phone)?;
        let (done, outcome) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            let unpaired = waiting.by_ref(&qr.reference)?;
            self.invite(unpaired, &phone, &qr.adv_secret, done)?;
        }
        self.changed();
        confirmed(outcome).await
    }

    fn make_up_account(&self) -> Result<Phone, PairError> {
        loop {
            let number = format!("55119{:08}", rand::random::<u32>() % 100_000_000);
            let phone = Phone::parse(&number).map_err(|InvalidPhone| PairError::NoAccount)?;
            if self.account(&phone).is_none() {
                self.add_account(&phone, "")?;
                return Ok(phone);
            }
        }
    }

    /// Sends `pair-success`: the phone vouches for the companion and waits for its signature.
    fn invite(
        &self,
        unpaired: &mut Unpaired,
        phone: &Phone,
        adv_secret: &[u8],
        done: Outcome,
    ) -> Result<(), PairError> {
        let (at, key_index, names, handset) = {
            let mut state = lock(&self.state);
            let id = state.registered(phone).ok_or(PairError::NoAccount)?;
            let account = state.account_mut(id).ok_or(PairError::NoAccount)?;
            let (device, key_index) = account.next_companion();
            (Address::new(id, device), key_index, account.names.clone(), account.handset.clone())
        };
        let endorsement = Endorsement::new(
            &handset.identity,
            unpaired.registration.keys.identity,
            handset.raw_id,
            key_index,
            u64::try_from(now()).unwrap_or_default(),
        )
        .map_err(|_| PairError::Signing)?;
        let iq = self.next_id();
        let success = wire::pair_success(&iq, endorsement.seal(adv_secret), &names, at.device, now());
        unpaired.link.send(Stanza::Raw(success));
        unpaired.confirmation = Some(Confirmation { at, phone: phone.clone(), key_index, endorsement, iq, done });
        Ok(())
    }

    /// The companion answers an IQ of the server. Returns whether it was the confirmation of a pairing.
    pub(crate) fn confirm_pairing(&self, link: u64, iq: &str, answer: Option<Vec<u8>>) -> bool {
        let (confirmation, unpaired) = {
            let mut waiting = lock(&self.waiting);
            let Some(unpaired) = waiting.connections.get_mut(&link) else { return false };
            let Some(confirmation) = unpaired.confirmation.take_if(|c| c.iq == iq) else { return false };
            let Some(identity) = answer else {
                let _ = confirmation.done.send(Err(PairError::NotConfirmed));
                return true;
            };
            match confirmation.endorsement.accept(&identity) {
                Ok(identity) => {
                    let Some(unpaired) = waiting.connections.remove(&link) else { return false };
                    waiting.refs.retain(|_, waits| *waits != link);
                    waiting.codes.retain(|_, waits| *waits != link);
                    ((confirmation, identity), unpaired)
                }
                Err(error @ (LinkingError::Unreadable | LinkingError::OtherDetails | LinkingError::Signature)) => {
                    tracing::warn!(link, %error, "a companion's confirmation is refused");
                    let _ = confirmation.done.send(Err(PairError::NotConfirmed));
                    return true;
                }
            }
        };
        let (confirmation, identity) = confirmation;
        self.link_companion(
            confirmation.at,
            Companion {
                noise_key: unpaired.registration.noise_key,
                keys: unpaired.registration.keys,
                identity,
                key_index: confirmation.key_index,
                platform: unpaired.registration.platform,
                push_name: String::new(),
                available: false,
                has_app_state_key: false,
                line: Line::default(),
            },
        );
        let restart = self.config.restart_delay;
        unpaired.link.send_after(Stanza::StreamError { code: "515".to_owned() }, restart);
        unpaired.link.close(restart + Duration::from_millis(50));
        let _ = confirmation.done.send(Ok(Linked { phone: confirmation.phone, device: confirmation.at.device }));
        true
    }

    /// A companion asks for a pairing code of a phone. Returns the ref of the pairing; `None` if there is no such
    /// account or the request makes no sense.
    pub(crate) fn request_code(&self, link: u64, phone: &Jid, wrapped: Vec<u8>) -> Option<Vec<u8>> {
        if !is_wrapped_key(&wrapped) {
            return None;
        }
        let (account, Addressing::Pn) = lock(&self.state).resolve(phone)? else { return None };
        let reference = rand::random::<[u8; 16]>().to_vec();
        let mut waiting = lock(&self.waiting);
        let unpaired = waiting.connections.get_mut(&link)?;
        unpaired.code =
            Some(CodeRequest { account, reference: reference.clone(), wrapped, since: Instant::now(), hello: None });
        waiting.codes.insert(account, link);
        drop(waiting);
        self.changed();
        Some(reference)
    }

    /// A phone's owner types the code that a companion shows. Returns when the companion has confirmed.
    ///
    /// # Errors
    /// Any [`PairError`] but those about QR codes.
    pub async fn enter_code(&self, phone: &Phone, code: &str) -> Result<Linked, PairError> {
        let code = PairCode::parse(code)?;
        let (id, number, handset) = {
            let state = lock(&self.state);
            let id = state.find(phone).ok_or(PairError::NoAccount)?;
            let account = state.account(id).ok_or(PairError::NoAccount)?;
            (id, account.number.clone(), account.handset.clone())
        };
        self.switched_on(&number)?;
        let (link, wrapped) = {
            let waiting = lock(&self.waiting);
            let link = *waiting.codes.get(&id).ok_or(PairError::NoCode)?;
            let request = waiting.connections.get(&link).and_then(|u| u.code.as_ref()).ok_or(PairError::NoCode)?;
            if request.since.elapsed() > self.config.pair_code_ttl {
                return Err(PairError::NoCode);
            }
            (link, request.wrapped.clone())
        };
        // Stretching the code takes long enough to be kept off the threads that serve connections.
        let hello = tokio::task::spawn_blocking(move || PrimaryHello::new(&code, &wrapped))
            .await
            .map_err(|_| PairError::Signing)??;
        let (done, outcome) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            let unpaired = waiting.connections.get_mut(&link).ok_or(PairError::NoCode)?;
            let request = unpaired.code.as_mut().ok_or(PairError::NoCode)?;
            let notice = wire::primary_hello(
                &self.next_id(),
                &hello.wrapped,
                &handset.identity_key(),
                &request.reference,
                now(),
            );
            request.hello = Some((hello, done));
            unpaired.link.send(Stanza::Raw(notice));
        }
        confirmed(outcome).await
    }

    /// The companion sends its key bundle after the code was typed. `None` if nobody typed one.
    pub(crate) fn finish_code(&self, link: u64, bundle: &[u8], identity: Key, reference: &[u8]) -> Option<()> {
        let (hello, done, account) = {
            let mut waiting = lock(&self.waiting);
            let unpaired = waiting.connections.get_mut(&link)?;
            if unpaired.registration.keys.identity != identity {
                return None;
            }
            let request = unpaired.code.as_mut().filter(|c| c.reference == reference)?;
            let (hello, done) = request.hello.take()?;
            (hello, done, request.account)
        };
        let (handset, phone) = {
            let state = lock(&self.state);
            let account = state.account(account)?;
            (account.handset.clone(), account.number.clone())
        };
        let secret = match hello.finish(&handset.identity, bundle, identity) {
            Ok(secret) => secret,
            Err(error) => {
                let _ = done.send(Err(error.into()));
                return Some(());
            }
        };
        let mut waiting = lock(&self.waiting);
        let unpaired = waiting.connections.get_mut(&link)?;
        if let Err(error) = self.invite(unpaired, &phone, &secret, done) {
            tracing::warn!(%error, "a pairing by code came to nothing");
        }
        Some(())
    }
}

async fn confirmed(outcome: oneshot::Receiver<Result<Linked, PairError>>) -> Result<Linked, PairError> {
    match tokio::time::timeout(CONFIRMATION, outcome).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(PairError::NotConfirmed),
    }
}
