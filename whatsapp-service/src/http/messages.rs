//! `GET /messages`, `GET /messages/{id}` and `DELETE /messages/{id}`: what became of what was sent.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        App,
        caller::Tenant,
        page::{self, Page as PageOf},
        problem::Problem,
        query::{Query, invalid},
        request_log::Noted,
    },
    model::{
        address::Person,
        error_code::ErrorCode,
        message::{Filter, KINDS, Message, MessageStatus},
    },
    store::parts::{Position, Room},
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which messages.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Only those whose status is this one now.
    #[param(value_type = Option<MessageStatus>)]
    status: Option<String>,
    /// Only those of this kind.
    #[param(pattern = "^(text|image|video|audio|voice|document|sticker|location|contact|reaction|edit|revoke)$")]
    kind: Option<String>,
    /// Only those to this person: a number, or an address of WhatsApp's.
    to: Option<String>,
    /// Only those that their caller calls so.
    reference: Option<String>,
    /// Only those accepted at this time or later.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only those accepted before this time.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Messages on a page; 100 without it.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `nextCursor` of the page before.
    #[param(pattern = "^[0-9]{1,18}$")]
    cursor: Option<String>,
}

/// A page of messages, the newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Messages {
    messages: Vec<Message>,
    /// Give this as `cursor` to get the next page; absent on the last. A page may end before `limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// `GET /messages`: the tenant's messages and their fates, the newest first, a page at a time.
#[utoipa::path(
    get, path = "/messages", tag = "Messages",
    params(Page),
    responses((status = 200, description = "A page of messages.", body = Messages))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid(format!("limit: must be from 1 to {MAX_LIMIT}")));
    }
    let status = page.status.map(|word| {
        let known = || MessageStatus::ALL.map(MessageStatus::as_str).join(", ");
        MessageStatus::parse(&word).ok_or_else(|| invalid(format!("status: must be one of {}", known())))
    });
    if let Some(kind) = page.kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
        return Err(invalid(format!("kind: must be one of {}, not {kind}", KINDS.join(", "))));
    }
    let before = page.cursor.map(|cursor| cursor.parse());
    let before = before.transpose().map_err(|_| invalid("cursor: not one that this service gave"))?;
    let person = page.to.as_deref().map(|to| Person::parse(to).map_err(|error| invalid(format!("to: {error}"))));
    let recipient = match person.transpose()? {
        Some(person) => Some(app.manager.store().names_of(&tenant, &person).await?),
        None => None,
    };
    let filter = Filter {
        status: status.transpose()?,
        kind: page.kind,
        recipient,
        reference: page.reference,
        since: page.since.map(|text| time("since", &text)).transpose()?,
        until: page.until.map(|text| time("until", &text)).transpose()?,
    };
    let store = app.manager.store().clone();
    let page = PageOf {
        head: "{\"messages\":[",
        next: |last| format!("\"nextCursor\":\"{last}\""),
        position: Position::behind(before.unwrap_or(i64::MAX)),
        room: Room { rows: limit, bytes: page::BYTES },
        read: move |position, room| {
            let (store, tenant, filter) = (store.clone(), tenant.clone(), filter.clone());
            async move { store.messages(&tenant, filter, position, room, page::entry).await }
        },
    };
    page.answer().await
}

fn time(name: &str, text: &str) -> Result<DateTime<Utc>, Problem> {
    let parsed = DateTime::parse_from_rfc3339(text).map(|at| at.with_timezone(&Utc));
    parsed.map_err(|_| invalid(format!("{name}: must be a time like 2026-01-31T10:30:00Z")))
}

/// `GET /messages/{id}`: the whole fate of one message.
#[utoipa::path(
    get, path = "/messages/{id}", tag = "Messages",
    params(("id" = String, Path, description = "The message's id.", pattern = "^3EB0[0-9A-F]{18}$")),
    responses((status = 200, description = "The message.", body = Message))
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    id: Result<Path<String>, PathRejection>,
) -> Result<(Extension<Noted>, Json<Message>), Problem> {
    let Path(id) = id.map_err(|_| not_found())?;
    let message = app.manager.store().message(&tenant, &id).await?.ok_or_else(not_found)?;
    Ok((Extension(Noted::message(&message.id)), Json(message)))
}

/// `DELETE /messages/{id}`: cancels a message that has not left.
#[utoipa::path(
    delete, path = "/messages/{id}", tag = "Messages",
    params(("id" = String, Path, description = "The message's id.", pattern = "^3EB0[0-9A-F]{18}$")),
    responses((status = 200, description = "The message as it is now.", body = Message))
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    id: Result<Path<String>, PathRejection>,
) -> Result<(Extension<Noted>, Json<Message>), Problem> {
    let Path(id) = id.map_err(|_| not_found())?;
    let cancelled = match app.manager.get(&tenant) {
        Some(session) => session.outbox().cancel(&id).await?,
        // Nothing of a tenant without a session waits to be sent.
        None => app.manager.store().message(&tenant, &id).await?.map(Err),
    };
    match cancelled.ok_or_else(not_found)? {
        Ok(message) => Ok((Extension(Noted::message(&message.id)), Json(message))),
        Err(message) => {
            let why = match message.status {
                MessageStatus::Queued => "the message is on its way just now".to_owned(),
                status => format!("the message is {} already", status.as_str()),
            };
            Err(Problem::new(ErrorCode::NotCancellable, why))
        }
    }
}

fn not_found() -> Problem {
    let message = "This tenant has no message of this id, or it was forgotten since.";
    Problem::new(ErrorCode::MessageNotFound, message)
}
