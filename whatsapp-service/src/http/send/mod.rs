//! `POST /send` and `POST /send/bulk`.

pub mod body;
pub mod bulk;
pub mod content;
pub mod link_previews;
pub mod media;
pub mod multipart;
pub mod validate;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        App,
        body::aside,
        caller::Tenant,
        problem::Problem,
        query::{self, Query},
        request_log::Noted,
        send::{
            body::SendRequest,
            link_previews::LinkPreviews,
            media::Fetched,
            multipart::{Form, SendBody},
            validate::{ValidatedSend, key, validate},
        },
        unknown::{Warning, preferences},
    },
    model::{
        message::{Accepted, Message, MessageStatus},
        tenant::TenantId,
    },
    session::{
        Session,
        outbox::{NotTaken, Taken},
    },
    util::clock::timestamp,
};

/// How much longer a caller waits when the process is about to end.
const LAST_WAIT: Duration = Duration::from_secs(8);

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
    request_body(content((SendRequest = "application/json"), (Form = "multipart/form-data"))),
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

pub(crate) async fn send(
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
    let send = SendRequest { idempotency_key, ..send };
    let wish = aside(send.base64_len(), move || validate(send)).await??;
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
pub(crate) async fn take(
    app: &App,
    tenant: &TenantId,
    wishes: Vec<ValidatedSend>,
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
pub(crate) async fn submit(
    app: &App,
    tenant: &TenantId,
    wishes: Vec<ValidatedSend>,
    wait: bool,
) -> Result<Vec<Result<Taken, Problem>>, Problem> {
    // Nothing is fetched for nobody.
    accepting(app, tenant)?;
    let links = wishes.iter().filter_map(|wish| wish.link.as_deref());
    let (fetched, previews) = tokio::join!(
        Fetched::from(app, tenant, wishes.iter().filter_map(ValidatedSend::media)),
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
    let session = app.manager.get(tenant).ok_or_else(Problem::no_session)?;
    session.outbox().connection.accepts()?;
    Ok(session)
}

pub(crate) fn unforeseen() -> Problem {
    Problem::internal("Sending failed in an unforeseen way.")
}

/// `Prefer: respond-async` (RFC 7240).
pub(crate) fn prefers_async(headers: &HeaderMap) -> bool {
    preferences(headers).any(|(name, _)| name.eq_ignore_ascii_case("respond-async"))
}

/// The answer for a message as it is now. What has failed for good is an error, unless its caller did not want to wait
/// for that.
pub(crate) fn answer(message: Message, waited: bool) -> Result<(StatusCode, Answer), Problem> {
    match message.status {
        MessageStatus::Failed if waited => Err(Problem::failed(message)),
        status if status >= MessageStatus::Sent => Ok((StatusCode::OK, accepted(message))),
        _ => Ok((StatusCode::ACCEPTED, accepted(message))),
    }
}

pub(crate) fn accepted(message: Message) -> Answer {
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
mod tests;
