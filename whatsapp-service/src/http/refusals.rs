//! Which answer each refusal of the rooms below becomes.

use crate::{
    http::problem::Problem,
    media,
    model::{error_code::ErrorCode, tenant::InvalidTenantId},
    session::{
        OpenRefused,
        deletion::NotDeleted,
        outbox::{NotTaken, Refused},
        pairing::PasskeyRefused,
        presence::PresenceRefused,
    },
    store::error::StoreError,
    webhooks::PutRefused,
    whatsapp::passkey::AssertionRefused,
};

/// How long to wait before asking again when a tenant's queue is full, in seconds.
const QUEUE_PAUSE: u64 = 10;
/// How long to wait before asking again when too many voice notes are being made, in seconds.
const MEDIA_PAUSE: u64 = 10;

impl From<InvalidTenantId> for Problem {
    fn from(error: InvalidTenantId) -> Self {
        Self::new(ErrorCode::InvalidTenantId, format!("X-Tenant-Id: {error}"))
    }
}

impl From<OpenRefused> for Problem {
    fn from(refused: OpenRefused) -> Self {
        let message = refused.to_string();
        match refused {
            OpenRefused::Gone | OpenRefused::Deleting => Self::new(ErrorCode::Stopping, message),
            OpenRefused::CodeForAnotherPhone => Self::new(ErrorCode::PairingCodeOutstanding, message),
            OpenRefused::Store(error) => error.into(),
        }
    }
}

impl From<NotDeleted> for Problem {
    fn from(not_deleted: NotDeleted) -> Self {
        match not_deleted {
            NotDeleted::NotBegun(error) => error.into(),
            NotDeleted::Unfinished(_) => {
                let message = "The device is unlinked. The rest is deleted by itself, as soon as the disk allows it.";
                Self::new(ErrorCode::StorageFailed, message)
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::NotReady { state, reason, retry_after } => {
                let problem = Self::new(ErrorCode::SessionNotReady, message);
                let problem = problem.in_state(state, reason);
                match retry_after.map(|wait| wait.as_secs()) {
                    Some(seconds) => problem.retry_after(Some(seconds)),
                    None => problem.retryable(false),
                }
            }
            Refused::Stopping => Self::new(ErrorCode::Stopping, message),
            Refused::Store(error) => error.into(),
        }
    }
}

impl From<NotTaken> for Problem {
    fn from(not_taken: NotTaken) -> Self {
        let message = not_taken.to_string();
        match not_taken {
            NotTaken::QueueFull => Self::new(ErrorCode::QueueFull, message).retry_after(Some(QUEUE_PAUSE)),
            NotTaken::Conflict => Self::new(ErrorCode::IdempotencyConflict, message),
            NotTaken::LidAsNumber("to") => Self::new(ErrorCode::InvalidRecipient, message),
            NotTaken::LidAsNumber(_) => Self::new(ErrorCode::InvalidContent, message),
            NotTaken::UnknownMessage => Self::new(ErrorCode::MessageNotFound, message).retryable(false),
            NotTaken::OtherRecipient => Self::new(ErrorCode::OtherRecipient, message),
            NotTaken::MessageNotSent => Self::new(ErrorCode::MessageNotSent, message),
            NotTaken::WrongKind => Self::new(ErrorCode::WrongKind, message),
            NotTaken::TooOld => Self::new(ErrorCode::MessageTooOld, message),
        }
    }
}

impl From<media::NotTaken> for Problem {
    fn from(not_taken: media::NotTaken) -> Self {
        use media::NotTaken::{
            BrokenOff, Busy, Clash, Disk, Empty, Invalid, NoGif, NoVoice, NotFetched, Oversized, RoomFull, ShareFull,
            TooLarge, TooLong, TooSlow, Type, VideoForVoice,
        };
        let message = not_taken.to_string();
        match not_taken {
            Invalid(_) | Clash | Empty => Self::new(ErrorCode::InvalidContent, message),
            Type(_) | NoVoice | VideoForVoice | NoGif => Self::new(ErrorCode::MediaType, message),
            TooLarge { .. } | Oversized { .. } | TooLong { .. } => Self::new(ErrorCode::MediaTooLarge, message),
            NotFetched(failure) => {
                let problem = Self::new(ErrorCode::MediaNotFetched, message);
                problem.retryable(failure.is_retryable())
            }
            BrokenOff => Self::new(ErrorCode::IncompleteBody, "The body broke off."),
            TooSlow => Self::too_slow(),
            ShareFull | RoomFull => Self::new(ErrorCode::MediaRoomFull, message),
            Busy => Self::new(ErrorCode::MediaBusy, message).retry_after(Some(MEDIA_PAUSE)),
            Disk => Self::storage_failed(),
        }
    }
}

impl From<PresenceRefused> for Problem {
    fn from(not_done: PresenceRefused) -> Self {
        let message = not_done.to_string();
        match not_done {
            PresenceRefused::Refused(refused) => refused.into(),
            PresenceRefused::TooMany { wait } => {
                // Rounded up: before it, the answer would be the same.
                let seconds = wait.as_millis().div_ceil(1000);
                Self::new(ErrorCode::TooManyLookups, message).retry_after(u64::try_from(seconds).ok())
            }
            PresenceRefused::NotOnWhatsApp => Self::new(ErrorCode::RecipientNotOnWhatsApp, message),
            PresenceRefused::LidAsNumber(refused) => refused.into(),
            PresenceRefused::UnknownMessage => Self::new(ErrorCode::MessageNotFound, message),
            PresenceRefused::NoAnswer => Self::new(ErrorCode::NoAnswer, message),
        }
    }
}

impl From<PutRefused> for Problem {
    fn from(refused: PutRefused) -> Self {
        let message = refused.to_string();
        match refused {
            PutRefused::Url(_) => Self::new(ErrorCode::InvalidUrl, message),
            PutRefused::Secret(_) => Self::new(ErrorCode::InvalidSecret, message),
            PutRefused::Store(error) => error.into(),
        }
    }
}

impl From<PasskeyRefused> for Problem {
    fn from(refused: PasskeyRefused) -> Self {
        let message = refused.to_string();
        match refused {
            PasskeyRefused::Assertion(AssertionRefused::NotAsked) => Self::new(ErrorCode::PasskeyNotAskedFor, message),
            PasskeyRefused::Assertion(AssertionRefused::Malformed(_)) => {
                Self::new(ErrorCode::InvalidPasskeyAssertion, message)
            }
            PasskeyRefused::Failed(_) => Self::new(ErrorCode::PasskeyRefused, message),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "storage");
        Self::storage_failed()
    }
}
