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
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    caller::{Body, Tenant},
    problem::Problem,
};
use crate::{
    clock::timestamp,
    sessions::{NotTaken, Recipient, Submission, Taken},
    store::{Accepted, Content, Idempotency, Message, MessageStatus},
    tenant::TenantId,
};

/// The longest text that WhatsApp takes, in characters.
const MAX_MESSAGE: usize = 65_536;
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
    /// The recipient's number with the country code; only its digits count, 8 to 15 of them.
    #[schema(example = "5511888888888", pattern = "^[^0-9]*([0-9][^0-9]*){8,15}$")]
    to: String,
    /// The text.
    #[schema(min_length = 1, max_length = 65536)]
    message: String,
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
#[schema(as = SendAnswer)]
pub struct Answer {
    id: String,
    /// When the server took it; the contract's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    to: String,
    /// Of a repeated call with `wait=0`, it may also be `failed`.
    #[schema(pattern = "^(queued|unknown|failed|sent)$")]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// `POST /send`: writes a text down, sends it, and answers when WhatsApp has acknowledged it, or has taken too long.
#[utoipa::path(
    post, path = "/send", tag = "Messages",
    params(
        Options,
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
         description = "The same call again is the same message."),
        ("Prefer" = Option<String>, Header, description = "`respond-async` is the same as `wait=0`."),
    ),
    request_body = Send,
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
    Body(body): Body<Send>,
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
    let submission = submission(Send { idempotency_key, ..body })?;
    let taken =
        take(&app, &tenant, vec![submission], waits).await.map_err(|problem| problem.about(reference.clone()))?;
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
    submissions: Vec<Submission>,
    wait: bool,
) -> Result<Vec<Result<Taken, Problem>>, Problem> {
    let calls = submissions.iter().map(|submission| submission.idempotency.clone()).collect();
    let (mut taken, mut new) = (Vec::with_capacity(submissions.len()), Vec::new());
    for (known, submission) in app.manager.known(tenant, calls).await?.into_iter().zip(submissions) {
        taken.push(match known {
            Some(Accepted::Known(message)) => Some(Ok(app.manager.taken(tenant, *message, wait).await)),
            Some(_) => Some(Err(NotTaken::Conflict.into())),
            None => {
                new.push(submission);
                None
            }
        });
    }
    let all_new = new.len() == taken.len();
    let refused = match app.manager.get(tenant) {
        _ if new.is_empty() => None,
        None => Some(Problem::session_not_found(StatusCode::CONFLICT)),
        Some(session) => {
            // On a task of its own: a caller that hangs up must not stop a message halfway.
            let submitting = app.manager.see_through(async move { session.submit(new, wait).await });
            match submitting.await.map_err(|_| unforeseen())? {
                Ok(submitted) => {
                    let mut submitted = submitted.into_iter().map(|one| one.map_err(Problem::from));
                    for place in taken.iter_mut().filter(|place| place.is_none()) {
                        *place = submitted.next();
                    }
                    None
                }
                Err(refused) => Some(refused.into()),
            }
        }
    };
    match refused {
        Some(problem) if all_new => Err(problem),
        refused => {
            let for_the_rest = || Err(refused.clone().unwrap_or_else(unforeseen));
            Ok(taken.into_iter().map(|place| place.unwrap_or_else(for_the_rest)).collect())
        }
    }
}

fn unforeseen() -> Problem {
    Problem::internal("Sending failed in an unforeseen way.")
}

/// The key of a single call: in the header, or, as in bulk, in the body.
fn key(headers: &HeaderMap, in_body: Option<String>) -> Result<Option<String>, Problem> {
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

/// `POST /send/bulk`: writes many texts down in one commit, and answers at once.
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
    let (mut entries, mut submissions) = (Vec::with_capacity(messages.len()), Vec::new());
    for message in messages {
        let reference = message.get("reference").cloned();
        entries.push(match entry(message).and_then(submission) {
            Ok(submission) => {
                submissions.push(submission);
                Ok(reference)
            }
            Err(problem) => Err((problem, reference)),
        });
    }
    if submissions.is_empty() {
        let session = app.manager.get(&tenant).ok_or_else(|| Problem::session_not_found(StatusCode::CONFLICT))?;
        session.accepts()?;
    }
    let mut taken = take(&app, &tenant, submissions, false).await?.into_iter();
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

/// Checks what a caller wants sent.
fn submission(body: Send) -> Result<Submission, Problem> {
    let Send { to, message, reference, expires_in, idempotency_key } = body;
    let recipient = Recipient::parse(&to)?;
    if !(1..=MAX_MESSAGE).contains(&message.chars().count()) {
        let why = format!("`message` needs 1 to {MAX_MESSAGE} characters");
        return Err(Problem::bad_request("invalid_message", why));
    }
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
            let call = serde_json::json!([to, message, reference, expires_in]);
            Some(Idempotency { key, fingerprint: Sha256::digest(call.to_string()).into() })
        }
        None => None,
    };
    let expires_in = TimeDelta::seconds(seconds.cast_signed());
    Ok(Submission { to: recipient, content: Content { text: message }, reference, expires_in, idempotency })
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
        // The same answer to the same call, also when the message has come further since.
        status: if is_sent { MessageStatus::Sent } else { message.status }.as_str(),
        reference: message.reference,
    }
}
