//! What can go wrong, each with its code. The answers, the OpenAPI document and the table of `docs/errors.md` are all made
//! from this one list.

/// Whether a request that was answered so may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It may, and can succeed.
    Yes,
    /// It may not: it fails again, or does harm.
    No,
    /// The answer says which.
    Depends,
    /// Nothing is said: the request or the session has to change first.
    Unsaid,
}

/// To what an error may be the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// To everything.
    All,
    /// To all that asks for the secret.
    Every,
    /// To all that is about a tenant.
    Tenant,
    /// To all that takes a body.
    Body,
    /// To all that takes a query.
    Query,
    /// To all that has an id in its path.
    Id,
    /// To all that reads or writes the database.
    Stored,
    /// To the operations that its description names.
    Named,
    /// To nothing that is documented.
    Nothing,
    /// To nothing at all: only a message's `failure` has it.
    Reported,
}

/// Each row: the HTTP status, the label, the code if there is one, whether a retry makes sense, and what it may be the
/// answer to. The comment above it is its cell in the manual's table: the operations that it names are those of `Named`.
macro_rules! error_codes {
    ($($(#[doc = $when:literal])+ $name:ident = ($status:literal, $title:literal, $code:expr, $retry:ident, $on:ident);)+) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[doc = $when])+ $name,)+
        }

        impl ErrorCode {
            /// All of them, in the order of the manual.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            const fn row(self) -> (u16, &'static str, Option<&'static str>, Retry, On, &'static str) {
                match self {
                    $(Self::$name => ($status, $title, $code, Retry::$retry, On::$on, concat!($($when),+)),)+
                }
            }
        }
    };
}

error_codes! {
    /// the secret is absent or wrong, whatever the path. With a `message` that names the header
    Unauthorized = (401, "Unauthorized", None, Unsaid, Every);
    /// there is no such path
    NoSuchPath = (404, "Not found", None, Unsaid, Id);
    /// as many requests are under way as there may be [connections](#connections); with `retryAfter`. `/health`,
    /// `/metrics`, `/livez` and `/readyz` answer all the same
    TooManyConnections = (503, "Too many connections", Some("too_many_connections"), Yes, Every);
    /// the path exists, but not with this method; `Allow` names those it has
    MethodNotAllowed = (405, "Method not allowed", Some("method_not_allowed"), Unsaid, Nothing);
    /// `X-Tenant-Id` is absent or empty
    TenantRequired = (400, "Tenant ID required", None, Unsaid, Tenant);
    /// it is not a tenant id, or stands twice
    InvalidTenantId = (400, "Bad request", Some("invalid_tenant_id"), Unsaid, Tenant);
    /// a field, or a parameter of the query, is [not known](endpoints.md#what-is-not-understood); `message` says what
    /// was probably meant
    UnknownField = (400, "Bad request", Some("unknown_field"), Unsaid, All);
    /// the body is larger than `BODY_LIMIT`, not counting its base64, or than `BODY_MEMORY` lets one be; a form, than
    /// the largest [media](messages.md#media) may be. `message` names the way out
    PayloadTooLarge = (413, "Payload too large", Some("payload_too_large"), Unsaid, Body);
    /// the bodies of other calls fill `BODY_MEMORY`, or the tenant's share of it; with `retryAfter`
    BodyMemoryFull = (503, "Body memory full", Some("body_memory_full"), Yes, Body);
    /// the body did not arrive within `READ_TIMEOUT`, or came too slowly; of a [form](messages.md#media), a field did
    RequestTimeout = (408, "Request timeout", Some("request_timeout"), Unsaid, Body);
    /// the body broke off
    IncompleteBody = (400, "Bad request", Some("incomplete_body"), Unsaid, Body);
    /// the body is not JSON
    InvalidJson = (400, "Bad request", Some("invalid_json"), Unsaid, Body);
    /// it is JSON, but not an object, or a field is missing or of the wrong kind
    InvalidBody = (400, "Bad request", Some("invalid_body"), Unsaid, Body);
    /// a parameter of the query is not what it must be
    InvalidQuery = (400, "Bad request", Some("invalid_query"), Unsaid, Query);
    /// `POST /session`: `phone` is no [number](messages.md#to-whom) with the country code; `message` says what was seen
    InvalidPhone = (400, "Bad request", Some("invalid_phone"), Unsaid, Named);
    /// `POST /session`: `proxy` is not the address of a proxy, or one that needs `ALLOW_PRIVATE_TARGETS`; the message
    /// says why
    InvalidProxy = (400, "Bad request", Some("invalid_proxy"), Unsaid, Named);
    /// `POST /session`: a pairing code for another phone was asked for before
    PairingCodeOutstanding = (409, "Pairing code outstanding", Some("pairing_code_outstanding"), Unsaid, Named);
    /// `POST /session`: WhatsApp gives no pairing code; the session is `failed`
    PairingCodeRefused = (502, "Pairing code refused", Some("pairing_code_refused"), Yes, Named);
    /// `POST /session`, `DELETE /session`, `POST /send`, `POST /send/bulk`, `GET /messages/{id}/media`: the process is
    /// ending, or the session is being deleted
    Stopping = (503, "Service stopping", Some("stopping"), Yes, Named);
    /// what was to be written did not reach the disk, or what was to be read could not be; the log says why. See also
    /// [GET /health](endpoints.md#get-health)
    StorageFailed = (503, "Storage failed", Some("storage_failed"), Yes, Stored);
    /// `GET /session/qr`, `DELETE /session`: the tenant has no session
    SessionNotFound = (404, "Session not found", Some("session_not_found"), Unsaid, Named);
    /// `GET /session/qr`: no scan is awaited
    NoQrCode = (404, "No QR code", Some("no_qr_code"), Unsaid, Named);
    /// `GET /session/qr`: none of the three forms is accepted
    NotAcceptable = (406, "Not acceptable", Some("not_acceptable"), Unsaid, Named);
    /// `POST /send`, `POST /send/bulk`, `POST /session/passkey`, `POST /numbers/check`, `POST /presence`,
    /// `POST /messages/{id}/read`, `GET /messages/{id}/media`: the tenant has no session
    NoSession = (409, "Session not found", Some("session_not_found"), Unsaid, Named);
    /// `POST /session/passkey`: a part of the assertion is missing or not base64url
    InvalidPasskeyAssertion = (400, "Bad request", Some("invalid_passkey_assertion"), Unsaid, Named);
    /// `POST /session/passkey`: WhatsApp did not ask, or not any more
    PasskeyNotAskedFor = (409, "No passkey asked for", Some("passkey_not_asked_for"), Unsaid, Named);
    /// `POST /session/passkey`: the confirmation could not be sent
    PasskeyRefused = (502, "Passkey refused", Some("passkey_refused"), Unsaid, Named);
    /// `POST /send`, `POST /presence`: `to` is no [address](messages.md#to-whom) of a person; `message` says what was
    /// seen
    InvalidRecipient = (400, "Bad request", Some("invalid_recipient"), Unsaid, Named);
    /// `POST /send`: it is not exactly one [kind](messages.md#what-can-be-sent) of message, or a part of it is not what
    /// it must be
    InvalidContent = (400, "Bad request", Some("invalid_content"), Unsaid, Named);
    /// `POST /send`: the form is none, or a part of it is not what it must be, or not where it must stand
    InvalidMultipart = (400, "Bad request", Some("invalid_multipart"), Unsaid, Named);
    /// `POST /send`: `media` has more bytes than its kind may have, or a [voice note](messages.md#voice-notes) would
    /// play for too long
    MediaTooLarge = (413, "Payload too large", Some("media_too_large"), No, Named);
    /// `POST /send`: the bytes of `media` are not what they are said to be, or not what `voice`, `sticker` or `gif`
    /// needs
    MediaType = (415, "Unsupported media type", Some("media_type"), No, Named);
    /// `POST /send`: `media.url` led to nothing that can be sent. False, if it will not by itself: the server does not
    /// have it, its certificate is not valid, or the address is not allowed
    MediaNotFetched = (422, "Media not fetched", Some("media_not_fetched"), Depends, Named);
    /// `POST /send`: too much media waits to be sent, of this tenant or of all; the message says whose. It ends when
    /// some of it was sent, cancelled or has expired
    MediaRoomFull = (503, "Media room full", Some("media_room_full"), Yes, Named);
    /// `POST /send`: `message` is empty or too long
    InvalidMessage = (400, "Bad request", Some("invalid_message"), Unsaid, Named);
    /// `POST /send`: `reference` is longer than 256 characters
    InvalidReference = (400, "Bad request", Some("invalid_reference"), Unsaid, Named);
    /// `POST /send`: `expiresIn` is not from 1 to 604,800
    InvalidExpiresIn = (400, "Bad request", Some("invalid_expires_in"), Unsaid, Named);
    /// `POST /send`: the key has not 1 to 255 visible ASCII characters, or is given twice
    InvalidIdempotencyKey = (400, "Bad request", Some("invalid_idempotency_key"), Unsaid, Named);
    /// `POST /send/bulk`: no message, or more than 1,000
    InvalidMessages = (400, "Bad request", Some("invalid_messages"), Unsaid, Named);
    /// `POST /numbers/check`: no number or LID, more than 50, or some are none; `message` names them, and says what was
    /// seen
    InvalidNumbers = (400, "Bad request", Some("invalid_numbers"), Unsaid, Named);
    /// `POST /send`, `POST /send/bulk`, `POST /numbers/check`, `POST /presence`, `POST /messages/{id}/read`,
    /// `GET /messages/{id}/media`: with `state` and `reason`. True, with `retryAfter`, if it tries again by itself at a
    /// known time; otherwise a person is needed
    SessionNotReady = (409, "Session not ready", Some("session_not_ready"), Depends, Named);
    /// `POST /send`: the key was used with another body
    IdempotencyConflict = (409, "Idempotency conflict", Some("idempotency_conflict"), No, Named);
    /// `POST /send`: `OUTBOX_MAX_PER_TENANT` messages wait already; with `retryAfter`
    QueueFull = (429, "Queue full", Some("queue_full"), Yes, Named);
    /// `POST /send`: the message that it is about is in another chat
    OtherRecipient = (409, "Other recipient", Some("other_recipient"), No, Named);
    /// `POST /send`: the message that it is about is not sent, as far as anybody knows
    MessageNotSent = (409, "Not sent", Some("message_not_sent"), Yes, Named);
    /// `POST /send`: the message that it is about is of a kind that it does not go with
    WrongKind = (422, "Wrong kind", Some("wrong_kind"), No, Named);
    /// `POST /send`: the message that it is about was sent too long ago
    MessageTooOld = (422, "Too old", Some("message_too_old"), No, Named);
    /// `POST /numbers/check`, `POST /presence`: too many numbers were looked up lately; with `retryAfter`
    TooManyLookups = (429, "Too many look-ups", Some("too_many_lookups"), Yes, Named);
    /// `POST /numbers/check`, `POST /presence`, `POST /messages/{id}/read`: WhatsApp did not accept it, or did not
    /// answer within 20 seconds
    NoAnswer = (502, "No answer", Some("no_answer"), Yes, Named);
    /// `POST /presence`. `POST /send`: with `id`, as the nine codes below; see [why a message
    /// failed](messages.md#why-a-message-failed)
    RecipientNotOnWhatsApp = (422, "Recipient not on WhatsApp", Some("recipient_not_on_whatsapp"), No, Named);
    /// `POST /send`
    RecipientUnreachable = (502, "Recipient unreachable", Some("recipient_unreachable"), No, Named);
    /// `POST /send`: with `whatsappCode`
    RecipientRestricted = (502, "Message rejected", Some("recipient_restricted"), No, Named);
    /// `POST /send`: with `whatsappCode`
    AccountRestricted = (502, "Message rejected", Some("account_restricted"), No, Named);
    /// `POST /send`: with `whatsappCode`
    MessageRejected = (502, "Message rejected", Some("message_rejected"), No, Named);
    /// `POST /send`
    Expired = (504, "Message expired", Some("expired"), Yes, Named);
    /// `POST /send`
    Cancelled = (409, "Message not sent", Some("cancelled"), Yes, Named);
    /// `POST /send`
    SessionDeleted = (409, "Message not sent", Some("session_deleted"), No, Named);
    /// `POST /send`
    AccountChanged = (409, "Message not sent", Some("account_changed"), No, Named);
    /// `POST /send`
    ContentUnreadable = (409, "Message not sent", Some("content_unreadable"), No, Named);
    /// a device of the recipient has the message and can't read it. It is the answer to nothing: the message is `sent`
    RecipientCouldNotDecrypt = (409, "Message not sent", Some("recipient_could_not_decrypt"), Yes, Reported);
    /// `GET /messages/{id}`, `DELETE /messages/{id}`, `POST /messages/{id}/read`: the tenant has no such message, or it
    /// was forgotten. `POST /send`: the same of the message that it is about
    MessageNotFound = (404, "Message not found", Some("message_not_found"), Unsaid, Named);
    /// `DELETE /messages/{id}`: it is on its way just now, or no longer `queued`
    NotCancellable = (409, "Not cancellable", Some("not_cancellable"), Unsaid, Named);
    /// `GET /messages/{id}/media`: no file came with a message of this id, or what opens it was forgotten
    MediaNotFound = (404, "Media not found", Some("media_not_found"), Unsaid, Named);
    /// `GET /messages/{id}/media`: WhatsApp has the file no longer, and the account's phone did not upload it again
    MediaExpired = (410, "Media expired", Some("media_expired"), Unsaid, Named);
    /// `GET /messages/{id}/media`: the file is shorter
    RangeNotSatisfiable = (416, "Range not satisfiable", Some("range_not_satisfiable"), Unsaid, Named);
    /// `GET /messages/{id}/media`: no media host of WhatsApp's gives it now
    MediaUnavailable = (502, "Media unavailable", Some("media_unavailable"), Yes, Named);
    /// `GET /messages/{id}/media`: what WhatsApp has is not what the sender says
    MediaDamaged = (502, "Media damaged", Some("media_damaged"), Unsaid, Named);
    /// `POST /send`: too many [voice notes](messages.md#voice-notes) are being made. `GET /messages/{id}/media`: too
    /// many files are being fetched, or too large ones. With `retryAfter`
    MediaBusy = (503, "Media busy", Some("media_busy"), Yes, Named);
    /// `GET /events/stream`: `Last-Event-ID` is no number
    InvalidLastEventId = (400, "Bad request", Some("invalid_last_event_id"), Unsaid, Named);
    /// `GET /events/stream`: the tenant has as many open as it may have; with `retryAfter`
    TooManyStreamsOfTenant = (429, "Too many streams", Some("too_many_streams"), Yes, Named);
    /// `GET /events/stream`: all tenants together have as many open as there may be; with `retryAfter`
    TooManyStreams = (503, "Too many streams", Some("too_many_streams"), Yes, Named);
    /// `PUT /webhook`: `url` can't be used; `message` says why
    InvalidUrl = (400, "Bad request", Some("invalid_url"), Unsaid, Named);
    /// `PUT /webhook`: `secret` is not `whsec_` and 24 to 64 bytes in base64
    InvalidSecret = (400, "Bad request", Some("invalid_secret"), Unsaid, Named);
    /// `GET /webhook`, `POST /webhook/retry`: there is none. `DELETE /webhook`: the tenant has none of its own
    WebhookNotFound = (404, "Webhook not found", Some("webhook_not_found"), Unsaid, Named);
    /// with `message`: something that nobody foresaw; the log says more
    Internal = (500, "Internal error", None, Unsaid, Every);
}

impl ErrorCode {
    /// The HTTP status of an answer with it.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// A short stable label: `error` in an answer.
    pub const fn title(self) -> &'static str {
        self.row().1
    }

    /// The identifier for programs. Two may share one, where the status tells them apart; the four answers that the old
    /// service had already have none.
    pub const fn code(self) -> Option<&'static str> {
        self.row().2
    }

    /// Whether the same request may be sent again.
    pub const fn retry(self) -> Retry {
        self.row().3
    }

    /// To what it may be the answer.
    pub const fn on(self) -> On {
        self.row().4
    }

    /// What the manual says of it.
    pub fn description(self) -> &'static str {
        self.row().5.trim_start()
    }

    /// The operations that its description names, as `GET /status`.
    pub fn operations(self) -> impl Iterator<Item = &'static str> {
        self.description().split('`').skip(1).step_by(2).filter(|word| word.contains(" /"))
    }

    /// Whether an answer can have it. What can't is only told of a message.
    pub fn is_answered(self) -> bool {
        self.on() != On::Reported
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_code_and_its_status_stand_once_and_a_code_has_one_label() {
        let mut seen = HashSet::new();
        for error in ErrorCode::ALL {
            assert!(seen.insert((error.status(), error.code(), error.title())), "{error:?} stands twice");
            let others = ErrorCode::ALL.iter().filter(|other| other.code() == error.code() && error.code().is_some());
            others.for_each(|other| assert_eq!(other.title(), error.title(), "{error:?}"));
        }
    }

    #[test]
    fn what_answers_operations_that_it_names_names_some_and_nothing_else_does() {
        for error in ErrorCode::ALL {
            assert_eq!(error.operations().next().is_some(), error.on() == On::Named, "{error:?}");
        }
    }
}
