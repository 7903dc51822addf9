//! `POST /send` and `POST /send/bulk`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    attachment::{Attachment, Fetched, Wanted},
    caller::{Body, Tenant},
    content::{Parts, Said},
    multipart::{Form, SendBody},
    problem::Problem,
};
use crate::{
    address::Person,
    clock::timestamp,
    media,
    sessions::{NotTaken, Session, Submission, Taken},
    store::{
        Accepted, Contact, Content, ContentKind, Edit, Idempotency, Location, Message, MessageStatus, Reaction, Revoke,
    },
    tenant::TenantId,
};

/// The longest reference, in characters.
const MAX_REFERENCE: usize = 256;
/// The longest idempotency key, in characters.
const MAX_KEY: usize = 255;
/// How long a message may take by default, in seconds.
const DEFAULT_EXPIRY: u64 = 24 * 3600;
/// How long a message may take at most, in seconds.
const MAX_EXPIRY: u64 = 7 * 24 * 3600;
/// How many messages one call may hold.
const MAX_BULK: usize = 1000;
/// How much longer a caller waits when the process is about to end.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// `POST /send`'s body, and an entry of `POST /send/bulk`'s.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SendRequest)]
pub struct Send {
    /// The recipient: a phone number with the country code, with the punctuation that people use, or an address of
    /// WhatsApp's that ends in `@s.whatsapp.net`, `@c.us` or `@lid`.
    #[schema(example = "5511888888888")]
    to: String,
    /// A text, or what stands below the media.
    #[schema(min_length = 1, max_length = 65536)]
    message: Option<String>,
    /// An image, a video, audio, a document or a sticker.
    media: Option<Attachment>,
    /// Whether `media` is a voice note: whatever audio it is, it is made one.
    voice: Option<bool>,
    /// Whether it is a sticker: WebP.
    sticker: Option<bool>,
    /// Whether it is a document, whatever else it could be.
    document: Option<bool>,
    /// Whether it is a video that plays in a loop: MP4.
    gif: Option<bool>,
    /// The bytes of `media`, where they came in with the call.
    #[serde(skip)]
    bytes: Option<media::Taken>,
    /// A place.
    location: Option<Location>,
    /// Somebody's name and number.
    contact: Option<Contact>,
    /// An emoji at another message.
    reaction: Option<Reaction>,
    /// Another text for an earlier message.
    edit: Option<Edit>,
    /// An earlier message, to be taken back.
    revoke: Option<Revoke>,
    /// The id of the message that this one answers.
    #[schema(pattern = "^[!-~]{1,64}$")]
    reply_to: Option<String>,
    /// The caller's own name for the message.
    #[schema(max_length = 256)]
    reference: Option<String>,
    /// After how many seconds the message is given up; 86,400 without it.
    #[schema(minimum = 1, maximum = 604800)]
    expires_in: Option<u64>,
    /// A single message has a header for it.
    #[schema(pattern = "^[!-~]{1,255}$")]
    idempotency_key: Option<String>,
}

impl Send {
    /// With media that came in with the call.
    pub fn with_bytes(self, bytes: media::Taken) -> Self {
        Self { bytes: Some(bytes), ..self }
    }
}

/// `POST /send`'s query.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Options {
    /// 0 answers as soon as the message is written down; 1 without it.
    #[param(maximum = 1)]
    wait: Option<u8>,
}

/// What is said of a message that was accepted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SendAnswer)]
pub struct Answer {
    id: String,
    /// When the server took it; the contract's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    /// The number that WhatsApp knows the recipient by, as far as it is known; else whom the caller gave.
    to: String,
    /// The recipient's LID, where it is known: WhatsApp's other name for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_lid: Option<String>,
    /// Of a repeated call with `wait=0`, it may also be `failed`.
    #[schema(pattern = "^(queued|unknown|failed|sent)$")]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// `POST /send`: writes a message down, sends it, and answers when WhatsApp has acknowledged it, or has taken too long.
#[utoipa::path(
    post, path = "/send", tag = "Messages",
    params(
        Options,
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
         description = "The same call again is the same message."),
        ("Prefer" = Option<String>, Header, description = "`respond-async` is the same as `wait=0`."),
    ),
    request_body(content((Send = "application/json"), (Form = "multipart/form-data"))),
    responses(
        (status = 200, description = "The message is sent.", body = Answer),
        (status = 202, description = "It is accepted, and not settled yet.", body = Answer),
    )
)]
pub async fn post(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    options: Result<Query<Options>, QueryRejection>,
    headers: HeaderMap,
    SendBody(body): SendBody,
) -> Result<Response, Problem> {
    let Query(options) = options.map_err(|error| Problem::bad_request("invalid_query", error.body_text()))?;
    let waits = match options.wait {
        None => !prefers_async(&headers),
        Some(0) => false,
        Some(1) => true,
        Some(_) => return Err(Problem::bad_request("invalid_query", "wait: is 0 or 1")),
    };
    let idempotency_key = key(&headers, body.idempotency_key.clone())?;
    let reference = body.reference.clone();
    let wish = wish(Send { idempotency_key, ..body })?;
    let taken = take(&app, &tenant, vec![wish], waits).await.map_err(|problem| problem.about(reference.clone()))?;
    let taken = taken.into_iter().next().ok_or_else(unforeseen)?.map_err(|problem| problem.about(reference))?;
    let Taken { message, waiting } = taken;
    let Some(waiting) = waiting.filter(|_| !message.is_settled()) else { return answer(message, waits) };
    let stopping = async {
        app.manager.stopping().await;
        tokio::time::sleep(LAST_WAIT).await;
    };
    let settled = tokio::select! {
        settled = waiting => settled.ok(),
        () = tokio::time::sleep(app.send_timeout) => None,
        () = stopping => None,
    };
    match settled {
        Some(message) => answer(message, true),
        None => {
            // It was accepted, whether or not it can be read back now.
            let now = app.manager.store().message(&tenant, &message.id).await.ok().flatten();
            answer(now.unwrap_or(message), true)
        }
    }
}

/// Has messages accepted, each by itself: those that repeat an earlier call are what came of that, whatever the session
/// is by now. An error for all means that none was accepted, and none was before.
async fn take(
    app: &App,
    tenant: &TenantId,
    wishes: Vec<Wish>,
    wait: bool,
) -> Result<Vec<Result<Taken, Problem>>, Problem> {
    let calls = wishes.iter().map(|wish| wish.idempotency.clone()).collect();
    let (mut taken, mut new) = (Vec::with_capacity(wishes.len()), Vec::new());
    for (known, wish) in app.manager.known(tenant, calls).await?.into_iter().zip(wishes) {
        taken.push(match known {
            Some(Accepted::Known(message)) => Some(Ok(app.manager.taken(tenant, *message, wait).await)),
            Some(_) => Some(Err(NotTaken::Conflict.into())),
            None => {
                new.push(wish);
                None
            }
        });
    }
    if new.is_empty() {
        return Ok(taken.into_iter().flatten().collect());
    }
    let all_new = new.len() == taken.len();
    let mut submitted = match submit(app, tenant, new, wait).await {
        Err(problem) if all_new => return Err(problem),
        Err(problem) => {
            return Ok(taken.into_iter().map(|place| place.unwrap_or_else(|| Err(problem.clone()))).collect());
        }
        Ok(submitted) => submitted.into_iter(),
    };
    let mut next = || submitted.next().unwrap_or_else(|| Err(unforeseen()));
    Ok(taken.into_iter().map(|place| place.unwrap_or_else(&mut next)).collect())
}

/// Has new messages written down, each by itself, when the bytes of their media are here. An error for all means that
/// none was.
async fn submit(
    app: &App,
    tenant: &TenantId,
    wishes: Vec<Wish>,
    wait: bool,
) -> Result<Vec<Result<Taken, Problem>>, Problem> {
    // Nothing is fetched for nobody.
    accepting(app, tenant)?;
    let fetched = Fetched::from(app, tenant, wishes.iter().filter_map(Wish::media)).await;
    let (mut answers, mut good, mut held) = (Vec::with_capacity(wishes.len()), Vec::new(), Vec::new());
    for wish in wishes {
        answers.push(match wish.fulfil(app, tenant, &fetched).await {
            Ok((submission, media)) => {
                good.push(submission);
                held.extend(media);
                None
            }
            Err(problem) => Some(Err(problem)),
        });
    }
    if good.is_empty() {
        return Ok(answers.into_iter().flatten().collect());
    }
    // That took its time: it may be another session by now.
    let session = accepting(app, tenant)?;
    // On a task of its own: a caller that hangs up must not stop a message halfway.
    let submitting = app.manager.see_through(async move {
        let submitted = session.submit(good, wait).await;
        // Their files stay until the messages are written down.
        drop((held, fetched));
        submitted
    });
    let mut submitted = submitting.await.map_err(|_| unforeseen())??.into_iter();
    let mut next = || submitted.next().map_or_else(|| Err(unforeseen()), |one| one.map_err(Problem::from));
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(&mut next)).collect())
}

/// The tenant's session, if it takes messages.
pub(super) fn accepting(app: &App, tenant: &TenantId) -> Result<Arc<Session>, Problem> {
    let session = app.manager.get(tenant).ok_or_else(|| Problem::session_not_found(StatusCode::CONFLICT))?;
    session.accepts()?;
    Ok(session)
}

fn unforeseen() -> Problem {
    Problem::internal("Sending failed in an unforeseen way.")
}

/// The key of a single call: in the header, or, as in bulk, in the body.
pub(super) fn key(headers: &HeaderMap, in_body: Option<String>) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    match (values.next(), values.next(), in_body) {
        (None, _, in_body) => Ok(in_body),
        (Some(key), None, None) => Ok(Some(key.to_str().map_err(|_| invalid_key())?.to_owned())),
        _ => Err(Problem::bad_request("invalid_idempotency_key", "the idempotency key is given more than once")),
    }
}

/// `POST /send/bulk`'s body.
#[derive(Deserialize, ToSchema)]
#[schema(as = BulkRequest)]
pub struct Bulk {
    /// Each is looked at by itself: a bad one refuses nothing else.
    #[schema(value_type = Vec<Send>, min_items = 1, max_items = 1000)]
    messages: Vec<Value>,
}

/// `POST /send/bulk`'s answer: what became of each message, in order.
#[derive(Serialize, ToSchema)]
pub struct BulkAnswer {
    #[schema(value_type = Vec<Answer>)]
    messages: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Accepted(Answer),
    Refused {
        #[serde(flatten)]
        problem: Box<Problem>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reference: Option<Value>,
    },
}

/// `POST /send/bulk`: writes many messages down in one commit, and does not wait until they are sent.
#[utoipa::path(
    post, path = "/send/bulk", tag = "Messages",
    request_body = Bulk,
    responses((status = 202, description = "What became of each message, in order.", body = BulkAnswer))
)]
pub async fn bulk(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Body(Bulk { messages }): Body<Bulk>,
) -> Result<(StatusCode, Json<BulkAnswer>), Problem> {
    if !(1..=MAX_BULK).contains(&messages.len()) {
        let why = format!("messages: needs 1 to {MAX_BULK} of them");
        return Err(Problem::bad_request("invalid_messages", why));
    }
    let (mut entries, mut wishes) = (Vec::with_capacity(messages.len()), Vec::new());
    for message in messages {
        let reference = message.get("reference").cloned();
        entries.push(match entry(message).and_then(wish) {
            Ok(wish) => {
                wishes.push(wish);
                Ok(reference)
            }
            Err(problem) => Err((problem, reference)),
        });
    }
    if wishes.is_empty() {
        accepting(&app, &tenant)?;
    }
    let mut taken = take(&app, &tenant, wishes, false).await?.into_iter();
    let refused = |problem: Problem, reference| {
        problem.count();
        Entry::Refused { problem: problem.into(), reference }
    };
    let messages = entries.into_iter().map(|entry| match entry {
        Err((problem, reference)) => refused(problem, reference),
        Ok(reference) => match taken.next().unwrap_or_else(|| Err(unforeseen())) {
            Ok(Taken { message, .. }) => Entry::Accepted(accepted(message)),
            Err(problem) => refused(problem, reference),
        },
    });
    Ok((StatusCode::ACCEPTED, Json(BulkAnswer { messages: messages.collect() })))
}

fn entry(message: Value) -> Result<Send, Problem> {
    // An array would do for an object otherwise, its elements taken for fields in order.
    if !message.is_object() {
        return Err(Problem::bad_request("invalid_body", "The message is not an object."));
    }
    serde_path_to_error::deserialize(message).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner().to_string());
        Problem::bad_request("invalid_body", if path == "." { inner } else { format!("{path}: {inner}") })
    })
}

/// What a caller wants sent, checked as far as it is known.
struct Wish {
    to: Person,
    said: Said,
    reference: Option<String>,
    expires_in: TimeDelta,
    idempotency: Option<Idempotency>,
}

impl Wish {
    fn media(&self) -> Option<&Wanted> {
        match &self.said {
            Said::Media(wanted) => Some(wanted),
            Said::Content(_) => None,
        }
    }

    /// Has the bytes of its media on the disk, if it has media.
    async fn fulfil(
        self,
        app: &App,
        tenant: &TenantId,
        fetched: &Fetched,
    ) -> Result<(Submission, Option<media::Taken>), Problem> {
        let Self { to, said, reference, expires_in, idempotency } = self;
        let (content, media) = match said {
            Said::Content(content) => (content, None),
            Said::Media(wanted) => {
                let (content, media) = wanted.content(app, tenant, fetched).await?;
                (content, Some(media))
            }
        };
        Ok((Submission { to, content, reference, expires_in, idempotency }, media))
    }
}

/// Checks what a caller wants sent.
fn wish(body: Send) -> Result<Wish, Problem> {
    let Send { to, reference, expires_in, idempotency_key, .. } = body;
    let recipient = recipient(&to)?;
    let Send { message, media, voice, sticker, document, gif, bytes, .. } = body;
    let Send { location, contact, reaction, edit, revoke, reply_to, .. } = body;
    let parts = Parts {
        message,
        media,
        bytes,
        voice,
        sticker,
        document,
        gif,
        location,
        contact,
        reaction,
        edit,
        revoke,
        reply_to,
    };
    let said = parts.content()?;
    if reference.as_ref().is_some_and(|reference| reference.chars().count() > MAX_REFERENCE) {
        let why = format!("`reference` has at most {MAX_REFERENCE} characters");
        return Err(Problem::bad_request("invalid_reference", why));
    }
    let seconds = expires_in.unwrap_or(DEFAULT_EXPIRY);
    if !(1..=MAX_EXPIRY).contains(&seconds) {
        let why = format!("`expiresIn` is a number of seconds from 1 to {MAX_EXPIRY}");
        return Err(Problem::bad_request("invalid_expires_in", why));
    }
    let idempotency = match idempotency_key {
        Some(key) if !is_key(&key) => return Err(invalid_key()),
        Some(key) => Some(Idempotency { key, fingerprint: fingerprint(&to, &said, &reference, expires_in) }),
        None => None,
    };
    let expires_in = TimeDelta::seconds(seconds.cast_signed());
    Ok(Wish { to: recipient, said, reference, expires_in, idempotency })
}

/// The person whom a call's `to` names.
pub(super) fn recipient(to: &str) -> Result<Person, Problem> {
    Person::parse(to).map_err(|error| Problem::bad_request("invalid_recipient", error.of("to")))
}

/// A digest of all that a call says.
fn fingerprint(to: &str, said: &Said, reference: &Option<String>, expires_in: Option<u64>) -> [u8; 32] {
    let call = match said {
        // The fingerprints of the time when there were only texts are in databases. No other content is a plain text here.
        Said::Content(Content { kind: ContentKind::Text(text), reply_to: None }) => {
            json!([to, text, reference, expires_in])
        }
        Said::Content(content) => json!([to, content, reference, expires_in]),
        Said::Media(wanted) => json!([to, Wanted::identity(wanted), reference, expires_in]),
    };
    Sha256::digest(call.to_string()).into()
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

fn invalid_key() -> Problem {
    let why = format!("the idempotency key has 1 to {MAX_KEY} visible ASCII characters");
    Problem::bad_request("invalid_idempotency_key", why)
}

/// `Prefer: respond-async` (RFC 7240).
fn prefers_async(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    preferences.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case("respond-async"))
}

/// The answer for a message as it is now. What has failed for good is an error, unless its caller did not want to wait
/// for that.
fn answer(message: Message, waited: bool) -> Result<Response, Problem> {
    match message.status {
        MessageStatus::Failed if waited => Err(Problem::failed(message)),
        status if status >= MessageStatus::Sent => Ok(Json(accepted(message)).into_response()),
        _ => Ok((StatusCode::ACCEPTED, Json(accepted(message))).into_response()),
    }
}

fn accepted(message: Message) -> Answer {
    let is_sent = message.status >= MessageStatus::Sent;
    let taken_at = message.server_at.or(message.sent_at).filter(|_| is_sent);
    Answer {
        id: message.id,
        timestamp: taken_at.map(timestamp),
        to: message.number,
        to_lid: message.lid,
        // The same answer to the same call, also when the message has come further since.
        status: if is_sent { MessageStatus::Sent } else { message.status }.as_str(),
        reference: message.reference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(body: Value) -> Result<Wish, String> {
        let refused = |problem: Problem| {
            let said = serde_json::to_value(problem).unwrap();
            format!("{} {}", said["code"].as_str().unwrap(), said["message"].as_str().unwrap())
        };
        entry(body).and_then(wish).map_err(refused)
    }

    fn fingerprint_of(body: Value) -> String {
        let fingerprint = called(body).unwrap().idempotency.unwrap().fingerprint;
        fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_text_has_the_fingerprint_that_is_in_databases() {
        let plain = json!({"to": "+55 11 88888-8888", "message": "Hello", "idempotencyKey": "k"});
        // printf '["+55 11 88888-8888","Hello",null,null]' | sha256sum
        let known = "96440b51a3fdd7138393e9f40355bef32d5964572bc57356d7ba6640edf8ca95";
        assert_eq!(fingerprint_of(plain.clone()), known);
        let reply = json!({"to": "+55 11 88888-8888", "message": "Hello", "replyTo": "3EB0", "idempotencyKey": "k"});
        assert_ne!(fingerprint_of(reply), known);
    }

    #[test]
    fn every_part_of_the_content_is_in_the_fingerprint() {
        let with = |content: Value| {
            let mut body = json!({"to": "5511888888888", "idempotencyKey": "k"});
            body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            fingerprint_of(body)
        };
        let calls = [
            json!({"message": "3EB0"}),
            json!({"message": "3EB0", "replyTo": "3EB0"}),
            json!({"message": "3EB0", "replyTo": "3EB1"}),
            json!({"location": {"latitude": 1, "longitude": 2}}),
            json!({"location": {"latitude": 1, "longitude": 2.5}}),
            json!({"location": {"latitude": 1, "longitude": 2, "name": "A"}}),
            json!({"location": {"latitude": 1, "longitude": 2, "address": "A"}}),
            json!({"contact": {"name": "Ana", "phone": "5511999999999"}}),
            json!({"contact": {"name": "Ana", "phone": "5511999999998"}}),
            json!({"reaction": {"messageId": "3EB0", "emoji": ""}}),
            json!({"reaction": {"messageId": "3EB0", "emoji": "👍"}}),
            json!({"edit": {"messageId": "3EB0", "message": "A"}}),
            json!({"edit": {"messageId": "3EB0", "message": "B"}}),
            json!({"revoke": {"messageId": "3EB0"}}),
            json!({"media": {"base64": "AAAA"}}),
            json!({"media": {"base64": "AAAB"}}),
            json!({"media": {"url": "https://example.com/a"}}),
            json!({"media": {"url": "https://example.com/b"}}),
            json!({"media": {"base64": "AAAA", "filename": "a"}}),
            json!({"media": {"base64": "AAAA", "mimetype": "text/csv"}}),
            json!({"media": {"base64": "AAAA"}, "message": "A"}),
            json!({"media": {"base64": "AAAA"}, "replyTo": "3EB0"}),
            json!({"media": {"base64": "AAAA"}, "voice": true}),
            json!({"media": {"base64": "AAAA"}, "sticker": true}),
            json!({"media": {"base64": "AAAA"}, "document": true}),
        ];
        let all: std::collections::BTreeSet<_> = calls.iter().cloned().map(with).collect();
        assert_eq!(all.len(), calls.len());
    }

    #[test]
    fn what_can_not_be_sent_is_refused_with_the_field_that_is_wrong() {
        let long = |length| "x".repeat(length);
        for (content, why) in [
            (json!({}), "exactly one of `message`"),
            (json!({"message": "A", "revoke": {"messageId": "3EB0"}}), "`message` and `revoke` don't"),
            (
                json!({"location": {"latitude": 1, "longitude": 2}, "contact": {"name": "A", "phone": "5511999999999"},
                       "edit": {"messageId": "3EB0", "message": "A"}}),
                "`location`, `contact` and `edit` don't",
            ),
            (json!({"reaction": {"messageId": "A", "emoji": "👍"}, "replyTo": "B"}), "`replyTo` and `reaction`"),
            (json!({"edit": {"messageId": "A", "message": "A"}, "replyTo": "B"}), "`replyTo` and `edit`"),
            (json!({"revoke": {"messageId": "A"}, "replyTo": "B"}), "`replyTo` and `revoke`"),
            (json!({"message": "A", "replyTo": ""}), "`replyTo`"),
            (json!({"message": "A", "replyTo": "a b"}), "`replyTo`"),
            (json!({"message": "A", "replyTo": long(65)}), "`replyTo`"),
            (json!({"location": {"latitude": 90.1, "longitude": 2}}), "`location.latitude`"),
            (json!({"location": {"latitude": -91, "longitude": 2}}), "`location.latitude`"),
            (json!({"location": {"latitude": 1, "longitude": 180.5}}), "`location.longitude`"),
            (json!({"location": {"latitude": 1, "longitude": 2, "name": ""}}), "`location.name`"),
            (json!({"location": {"latitude": 1, "longitude": 2, "name": long(257)}}), "`location.name`"),
            (json!({"location": {"latitude": 1, "longitude": 2, "address": " "}}), "`location.address`"),
            (json!({"location": {"latitude": 1, "longitude": 2, "address": long(1025)}}), "`location.address`"),
            (json!({"contact": {"name": "A\r\nTEL:1", "phone": "5511999999999"}}), "`contact.name`"),
            (json!({"contact": {"name": long(257), "phone": "5511999999999"}}), "`contact.name`"),
            (json!({"contact": {"name": "A", "phone": "+55 11"}}), "`contact.phone` needs 8 to 15 digits"),
            (json!({"reaction": {"messageId": "A", "emoji": "👍👍"}}), "`reaction.emoji`"),
            (json!({"reaction": {"messageId": "A", "emoji": "ok"}}), "`reaction.emoji`"),
            (json!({"reaction": {"messageId": "", "emoji": "👍"}}), "`reaction.messageId`"),
            (json!({"edit": {"messageId": "é", "message": "A"}}), "`edit.messageId`"),
            (json!({"edit": {"messageId": "A", "message": ""}}), "`edit.message`"),
            (json!({"edit": {"messageId": "A", "message": long(65_537)}}), "`edit.message`"),
            (json!({"revoke": {"messageId": "A\n"}}), "`revoke.messageId`"),
            (json!({"media": {"base64": "AAAA"}, "replyTo": "a b"}), "`replyTo`"),
            (json!({"media": {"base64": "AAAA", "filename": ""}}), "`media.filename`"),
            (json!({"media": {"base64": "AAAA", "filename": long(256)}}), "`media.filename`"),
            (json!({"media": {"base64": "AAAA", "filename": "a\\b"}}), "`media.filename`"),
        ] {
            let mut body = json!({"to": "5511888888888"});
            body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            let refused = called(body).err().unwrap_or_else(|| panic!("{content} is taken"));
            assert!(refused.starts_with("invalid_content ") && refused.contains(why), "{content}: {refused}");
        }
        for caption in [long(0), long(65_537)] {
            let refused = called(json!({"to": "5511888888888", "media": {"base64": "AAAA"}, "message": caption})).err();
            assert!(refused.unwrap().starts_with("invalid_message `message`"));
        }
    }

    #[test]
    fn what_can_be_sent_is_taken() {
        for content in [
            json!({"message": "A"}),
            json!({"message": "A", "replyTo": "3EB0", "location": null, "edit": null}),
            json!({"location": {"latitude": -90, "longitude": 180.0}, "replyTo": "3EB0"}),
            json!({"location": {"latitude": 0, "longitude": 0, "name": "x".repeat(256), "address": null}}),
            json!({"contact": {"name": "Ana; Bruno, \\ & Co", "phone": "+55 (11) 99999-9999", "email": "unknown"}}),
            json!({"reaction": {"messageId": "3EB0", "emoji": ""}}),
            json!({"edit": {"messageId": "!~", "message": "A\nB"}}),
            json!({"revoke": {"messageId": "x".repeat(64)}}),
            json!({"media": {"base64": "AAAA", "filename": "x".repeat(255)}, "message": "x".repeat(65_536)}),
        ] {
            let mut body = json!({"to": "5511888888888"});
            body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            if let Err(refused) = called(body) {
                panic!("{content}: {refused}");
            }
        }
    }
}
