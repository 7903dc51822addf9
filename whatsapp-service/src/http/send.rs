//! `POST /send` and `POST /send/bulk`.

use crate::session::Session;
use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        App,
        attachment::{Attachment, Fetched, Wanted},
        body::{self, Raw},
        caller::Tenant,
        content::{Parts, Said},
        json,
        link_previews::LinkPreviews,
        multipart::{Form, SendBody},
        problem::Problem,
        query::{self, Query},
        request_log::Noted,
        unknown::{Unknown, Warning, preferences, understood},
    },
    media::link_preview::first_link,
    model::{
        address::Person,
        content::{Contact, Content, ContentKind, Edit, Location, Reaction, Revoke},
        message::{Accepted, Idempotency, Message, MessageStatus},
        tenant::TenantId,
    },
    session::outbox::{NotTaken, Submission, Taken},
    util::clock::timestamp,
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
/// The longest reference of a message that is not accepted, in bytes of JSON: a longer one is not told again.
const MAX_TOLD: usize = 2048;
/// How much longer a caller waits when the process is about to end.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// `POST /send`'s body, and an entry of `POST /send/bulk`'s.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
#[schema(as = SendRequest)]
pub struct Send {
    /// The recipient: a phone number with the country code, with the punctuation that people use, or an address of
    /// WhatsApp's that ends in `@s.whatsapp.net`, `@c.us` or `@lid`.
    #[schema(example = "5511888888888")]
    to: String,
    /// A text, or what stands below the media.
    #[schema(min_length = 1, max_length = 65536)]
    message: Option<String>,
    /// Another name for `message`, with `media`.
    #[schema(min_length = 1, max_length = 65536)]
    caption: Option<String>,
    /// An image, a video, audio, a document or a sticker.
    #[serde(default, deserialize_with = "json::object")]
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
    bytes: Option<crate::media::shelf::Taken>,
    /// A place.
    #[serde(default, deserialize_with = "json::object")]
    location: Option<Location>,
    /// Somebody's name and number.
    #[serde(default, deserialize_with = "json::object")]
    contact: Option<Contact>,
    /// An emoji at another message.
    #[serde(default, deserialize_with = "json::object")]
    reaction: Option<Reaction>,
    /// Another text for an earlier message.
    #[serde(default, deserialize_with = "json::object")]
    edit: Option<Edit>,
    /// An earlier message, to be taken back.
    #[serde(default, deserialize_with = "json::object")]
    revoke: Option<Revoke>,
    /// The id of the message that this one answers.
    #[schema(pattern = "^[!-~]{1,64}$")]
    reply_to: Option<String>,
    /// Those who are mentioned in `message`, by number or LID: their digits stand in it behind an `@`.
    #[schema(max_items = 1024)]
    mentions: Option<Vec<String>>,
    /// Whether the first link in `message` is shown with its title, description and picture.
    link_preview: Option<bool>,
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
    pub fn with_bytes(self, bytes: crate::media::shelf::Taken) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    /// How much of the body is base64.
    pub fn base64_len(&self) -> usize {
        self.media.as_ref().and_then(|media| media.base64.as_ref()).map_or(0, |base64| base64.len())
    }

    /// Takes out a `caption` that has no media to stand below: the old service knew neither.
    pub fn without_stray_caption(mut self) -> (Self, Unknown) {
        if self.media.is_some() || self.caption.take().is_none() {
            return (self, Unknown::default());
        }
        let why = "`caption` is the text below `media`, and there is none: a text is `message`.";
        (self, Unknown::misplaced("caption", why))
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
    /// What was in the call and was not understood.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<Warning>,
}

/// `POST /send`: writes a message down, sends it, and answers when WhatsApp has acknowledged it, or has taken too long.
#[utoipa::path(
    post, path = "/send", tag = "Messages",
    params(
        Options,
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
         description = "The same call again is the same message."),
        ("Prefer" = Option<String>, Header,
         description = "`respond-async` is the same as `wait=0`. `handling=strict` refuses what is not known."),
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
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: SendBody,
) -> Result<Response, Problem> {
    let unknown = body.unknown.clone();
    match send(app, tenant, options, &headers, body).await {
        Ok((status, answer)) => {
            let noted = Noted::message(&answer.id).unknown(&unknown);
            let answer = Answer { warnings: unknown.warnings(), ..answer };
            Ok((status, Extension(noted), Json(answer)).into_response())
        }
        Err(problem) => Err(problem.warned(&unknown)),
    }
}

async fn send(
    app: Arc<App>,
    tenant: TenantId,
    options: Options,
    headers: &HeaderMap,
    body: SendBody,
) -> Result<(StatusCode, Answer), Problem> {
    let waits = match options.wait {
        None => !prefers_async(headers),
        Some(0) => false,
        Some(1) => true,
        Some(_) => return Err(query::invalid("wait: must be 0 or 1")),
    };
    let SendBody { send, memory, .. } = body;
    let idempotency_key = key(headers, send.idempotency_key.clone())?;
    let reference = send.reference.clone();
    let send = Send { idempotency_key, ..send };
    let wish = body::aside(send.base64_len(), move || wish(send)).await??;
    let taken = take(&app, &tenant, vec![wish], waits).await.map_err(|problem| problem.about(reference.clone()))?;
    // What was in the body is on the disk by now.
    drop(memory);
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
    let links = wishes.iter().filter_map(|wish| wish.link.as_deref());
    let (fetched, previews) = tokio::join!(
        Fetched::from(app, tenant, wishes.iter().filter_map(Wish::media)),
        LinkPreviews::of(app, tenant, links),
    );
    let (mut answers, mut good, mut held) = (Vec::with_capacity(wishes.len()), Vec::new(), Vec::new());
    for wish in wishes {
        answers.push(match wish.fulfil(app, tenant, &fetched, &previews).await {
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
        let submitted = session.outbox().submit(good, wait).await;
        // Their files stay until the messages are written down.
        drop((held, fetched));
        submitted
    });
    let mut submitted = submitting.await.map_err(|_| unforeseen())??.into_iter();
    let mut next = || submitted.next().map_or_else(|| Err(unforeseen()), |one| one.map_err(Problem::from));
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(&mut next)).collect())
}

/// The tenant's session, if it takes messages.
pub(crate) fn accepting(app: &App, tenant: &TenantId) -> Result<Arc<Session>, Problem> {
    let session = app.manager.get(tenant).ok_or_else(|| Problem::session_not_found(StatusCode::CONFLICT))?;
    session.outbox().connection.accepts()?;
    Ok(session)
}

fn unforeseen() -> Problem {
    Problem::internal("Sending failed in an unforeseen way.")
}

/// The key of a single call: in the header, or, as in bulk, in the body.
pub(crate) fn key(headers: &HeaderMap, in_body: Option<String>) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    match (values.next(), values.next(), in_body) {
        (None, _, in_body) => Ok(in_body),
        (Some(key), None, None) => Ok(Some(key.to_str().map_err(|_| invalid_key())?.to_owned())),
        _ => Err(Problem::bad_request("invalid_idempotency_key", "the idempotency key is given more than once")),
    }
}

/// `POST /send/bulk`'s body.
#[derive(Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = BulkRequest)]
pub struct Bulk<'a> {
    /// Each is looked at by itself: a bad one refuses nothing else.
    #[serde(borrow, deserialize_with = "a_few_more_than_allowed")]
    #[schema(value_type = Vec<Send>, min_items = 1, max_items = 1000)]
    messages: Vec<&'a RawValue>,
}

/// Reads the messages of a call, as they stand there: what is wrong with one shows when it is read by itself. No more of
/// them are kept than it takes to see that there are too many.
fn a_few_more_than_allowed<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<&'de RawValue>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut messages = Vec::new();
            while let Some(entry) = entries.next_element()? {
                if messages.len() <= MAX_BULK {
                    messages.push(entry);
                }
            }
            Ok(messages)
        }
    }

    from.deserialize_seq(Entries)
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
    request_body = Bulk<'static>,
    responses((status = 202, description = "What became of each message, in order.", body = BulkAnswer))
)]
pub async fn bulk(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    body: Raw,
) -> Result<(StatusCode, Extension<Noted>, Json<BulkAnswer>), Problem> {
    let (length, limit) = (body.bytes.len(), app.body_limit);
    let Raw { bytes, memory } = body;
    let (entries, wishes) = body::aside(length, move || entries(&bytes, limit)).await??;
    if wishes.is_empty() {
        accepting(&app, &tenant)?;
    }
    let mut taken = take(&app, &tenant, wishes, false).await?.into_iter();
    drop(memory);
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
    let answer = BulkAnswer { messages: messages.collect() };
    let refused = answer.messages.iter().filter(|entry| matches!(entry, Entry::Refused { .. })).count();
    let noted = Noted::bulk(answer.messages.len() - refused, refused);
    Ok((StatusCode::ACCEPTED, Extension(noted), Json(answer)))
}

/// For each message of a call, in order, the name that its caller has for it, or what is wrong with it, too; and of those
/// with which nothing is, what is wanted.
type Entries = (Vec<Result<Option<Value>, (Problem, Option<Value>)>>, Vec<Wish>);

/// Reads the body of a call with many messages.
fn entries(bytes: &[u8], limit: usize) -> Result<Entries, Problem> {
    let (Bulk { messages }, _) = understood(json::parse(bytes), "BulkRequest", false)?;
    if !(1..=MAX_BULK).contains(&messages.len()) {
        let why = format!("messages: needs 1 to {MAX_BULK} of them");
        return Err(Problem::bad_request("invalid_messages", why));
    }
    let (mut entries, mut wishes, mut base64) = (Vec::with_capacity(messages.len()), Vec::new(), 0);
    for message in messages {
        let read = entry(message).inspect(|send| base64 += send.base64_len());
        entries.push(match read.map(|send| (send.reference.clone(), wish(send))) {
            Ok((reference, Ok(wish))) => {
                wishes.push(wish);
                Ok(reference.map(Value::from))
            }
            Ok((_, Err(problem))) | Err(problem) => Err((problem, reference(message))),
        });
    }
    body::check_size(bytes.len(), base64, limit)?;
    Ok((entries, wishes))
}

fn entry(message: &RawValue) -> Result<Send, Problem> {
    Ok(understood(json::parse(message.get().as_bytes()), "SendRequest", false)?.0)
}

/// The name that the caller has for a message with which something is wrong, if that can be read.
fn reference(message: &RawValue) -> Option<Value> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        reference: Option<&'a RawValue>,
    }
    let Named { reference } = serde_json::from_str(message.get()).ok()?;
    reference.filter(|told| told.get().len() <= MAX_TOLD).and_then(|told| serde_json::from_str(told.get()).ok())
}

/// What a caller wants sent, checked as far as it is known.
struct Wish {
    to: Person,
    said: Said,
    /// The link that is to be shown with what is behind it.
    link: Option<String>,
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
        previews: &LinkPreviews,
    ) -> Result<(Submission, Option<crate::media::shelf::Taken>), Problem> {
        let Self { to, said, link, reference, expires_in, idempotency } = self;
        let (content, media) = match said {
            Said::Content(content) => {
                let link_preview = link.and_then(|link| previews.get(&link));
                (Content { link_preview, ..content }, None)
            }
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
    let Send { message, caption, media, voice, sticker, document, gif, bytes, .. } = body;
    let Send { location, contact, reaction, edit, revoke, reply_to, mentions, link_preview, .. } = body;
    let shows_link = link_preview == Some(true);
    let link = message.as_deref().filter(|_| shows_link).and_then(first_link).map(str::to_owned);
    let said = Parts {
        message,
        caption,
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
        mentions,
        link_preview,
    };
    let said = said.content()?;
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
        Some(key) => {
            let fingerprint = fingerprint(&to, &said, shows_link, &reference, expires_in);
            Some(Idempotency { key, fingerprint })
        }
        None => None,
    };
    let expires_in = TimeDelta::seconds(seconds.cast_signed());
    Ok(Wish { to: recipient, said, link, reference, expires_in, idempotency })
}

/// The person whom a call's `to` names.
pub(crate) fn recipient(to: &str) -> Result<Person, Problem> {
    Person::parse(to).map_err(|error| Problem::bad_request("invalid_recipient", error.of("to")))
}

/// A digest of all that a call says, and not of what is found behind its links.
fn fingerprint(
    to: &str,
    said: &Said,
    shows_link: bool,
    reference: &Option<String>,
    expires_in: Option<u64>,
) -> [u8; 32] {
    let mut call = match said {
        // The fingerprints of the time when there were only texts are in databases. No other content is a plain text here.
        Said::Content(Content { kind: ContentKind::Text(text), reply_to: None, mentions, .. })
            if mentions.is_empty() =>
        {
            json!([to, text, reference, expires_in])
        }
        Said::Content(content) => json!([to, content, reference, expires_in]),
        Said::Media(wanted) => json!([to, Wanted::identity(wanted), reference, expires_in]),
    };
    if let Some(call) = call.as_array_mut().filter(|_| shows_link) {
        call.push(json!({"linkPreview": true}));
    }
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
    preferences(headers).any(|(name, _)| name.eq_ignore_ascii_case("respond-async"))
}

/// The answer for a message as it is now. What has failed for good is an error, unless its caller did not want to wait
/// for that.
fn answer(message: Message, waited: bool) -> Result<(StatusCode, Answer), Problem> {
    match message.status {
        MessageStatus::Failed if waited => Err(Problem::failed(message)),
        status if status >= MessageStatus::Sent => Ok((StatusCode::OK, accepted(message))),
        _ => Ok((StatusCode::ACCEPTED, accepted(message))),
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
        warnings: Vec::new(),
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
        let body = serde_json::value::to_raw_value(&body).unwrap();
        entry(&body).and_then(wish).map_err(refused)
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
            json!({"message": "3EB0", "linkPreview": true}),
            json!({"message": "3EB0", "mentions": ["5511777777777"]}),
            json!({"message": "3EB0", "mentions": ["5511777777778"]}),
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
            json!({"media": {"base64": "AAAA"}, "message": "A", "mentions": ["5511777777777"]}),
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
            (json!({"message": "A", "mentions": ["5511777777777", "12"]}), "in `mentions`, `12` needs 8 to 15 digits"),
            (json!({"message": "A", "mentions": vec!["5511777777777"; 1025]}), "`mentions` names 1024"),
            (
                json!({"location": {"latitude": 1, "longitude": 2}, "mentions": ["5511777777777"]}),
                "`mentions` goes with",
            ),
            (json!({"media": {"base64": "AAAA"}, "mentions": ["5511777777777"]}), "`mentions` goes with"),
            (json!({"edit": {"messageId": "A", "message": "A"}, "linkPreview": true}), "`linkPreview` goes with"),
            (json!({"media": {"base64": "AAAA"}, "message": "A", "linkPreview": true}), "`linkPreview` goes with"),
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
            (json!({"media": {"base64": "AAAA"}, "caption": "A", "message": "B"}), "`message` and `caption`"),
            (json!({"message": "A", "caption": "A"}), "`caption` is the text below `media`"),
            (json!({"caption": "A"}), "`caption` is the text below `media`"),
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
            for name in ["message", "caption"] {
                let refused = called(json!({"to": "5511888888888", "media": {"base64": "AAAA"}, name: caption})).err();
                assert!(refused.unwrap().starts_with("invalid_message `message`"));
            }
        }
    }

    #[test]
    fn caption_and_message_are_one_name() {
        let with = |name: &str| {
            let media = json!({"base64": "AAAA"});
            fingerprint_of(json!({"to": "5511888888888", "idempotencyKey": "k", "media": media, name: "A"}))
        };
        assert_eq!(with("caption"), with("message"));
    }

    #[test]
    fn many_messages_are_read_one_by_one() {
        let long = "x".repeat(5_000);
        let body = format!(
            r#"{{"messages":[
                {{"to":"5511888888888","message":"A","reference":"r-1"}},
                {{"to":"5511888888888","message":"\ud800","reference":"r-2"}},
                {{"to":"5511888888888","location":{{"latitude":1e999,"longitude":2}},"reference":"r-3"}},
                {{"to":"5511888888888","message":"A","to":"5511888888887","reference":5}},
                {{"to":"5511888888888","location":[1,2]}},
                ["5511888888888","A"],
                {{"to":"5511888888888","mesage":"A","reference":"{long}"}},
                {{"to":"5511888888888","message":"A","reference":"\ud800"}},
                {{"to":"5511888888888","message":"A"}}
            ]}}"#
        );
        let (entries, wishes) = super::entries(body.as_bytes(), 1 << 20).unwrap();
        let told: Vec<_> = entries
            .into_iter()
            .map(|entry| match entry {
                Ok(reference) => (None, reference),
                Err((problem, reference)) => {
                    (serde_json::to_value(problem).unwrap()["code"].as_str().map(str::to_owned), reference)
                }
            })
            .collect();
        let expected = [
            (None, Some(json!("r-1"))),
            (Some("invalid_json"), Some(json!("r-2"))),
            (Some("invalid_json"), Some(json!("r-3"))),
            (Some("invalid_body"), Some(json!(5))),
            (Some("invalid_body"), None),
            (Some("invalid_body"), None),
            (Some("unknown_field"), None),
            (Some("invalid_json"), None),
            (None, None),
        ];
        assert_eq!(told, expected.map(|(code, reference)| (code.map(str::to_owned), reference)));
        assert_eq!(wishes.len(), 2);
        let many = format!(r#"{{"messages":[{}{{}}]}}"#, "{},".repeat(1000));
        for (body, code) in
            [(many.as_str(), "invalid_messages"), (r#"{"messages":[]}"#, "invalid_messages"), ("{}", "invalid_body")]
        {
            let problem = super::entries(body.as_bytes(), 1 << 20).err().unwrap();
            assert_eq!(serde_json::to_value(problem).unwrap()["code"], code);
        }
    }

    #[test]
    fn what_can_be_sent_is_taken() {
        for content in [
            json!({"message": "A"}),
            json!({"message": "A", "replyTo": "3EB0", "location": null, "edit": null}),
            json!({"message": "@5511777777777", "mentions": ["+55 (11) 77777-7777"], "linkPreview": true}),
            json!({"location": {"latitude": 1, "longitude": 2}, "mentions": [], "linkPreview": false}),
            json!({"media": {"base64": "AAAA"}, "message": "A", "mentions": ["5511777777777"]}),
            json!({"media": {"base64": "AAAA"}, "caption": "A", "mentions": ["5511777777777"]}),
            json!({"location": {"latitude": -90, "longitude": 180.0}, "replyTo": "3EB0"}),
            json!({"location": {"latitude": 0, "longitude": 0, "name": "x".repeat(256), "address": null}}),
            json!({"contact": {"name": "Ana; Bruno, \\ & Co", "phone": "+55 (11) 99999-9999"}}),
            json!({"reaction": {"messageId": "3EB0", "emoji": ""}}),
            json!({"edit": {"messageId": "!~", "message": "A\nB"}}),
            json!({"revoke": {"messageId": "x".repeat(64)}}),
            json!({"media": {"base64": "AAAA", "filename": "x".repeat(255)}, "message": "x".repeat(65_536)}),
            json!({"media": {"base64": "AAAA"}, "caption": "x".repeat(65_536)}),
            json!({"media": {"base64": "AAAA"}, "caption": "A", "message": "A"}),
        ] {
            let mut body = json!({"to": "5511888888888"});
            body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            if let Err(refused) = called(body) {
                panic!("{content}: {refused}");
            }
        }
    }
}
