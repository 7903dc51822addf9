//! `PUT`, `GET` and `DELETE /webhook`, and `POST /webhook/retry`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{App, body::Body, caller::Tenant, problem::Problem},
    model::{error_code::ErrorCode, event::EventKind, tenant::TenantId},
    util::clock::timestamp,
};

/// `PUT /webhook`'s body.
#[derive(Deserialize, ToSchema)]
#[schema(as = WebhookRequest)]
pub struct Put {
    /// `https://` or `http://`, without a user name, a password or a fragment.
    #[schema(format = "uri", max_length = 2048, example = "https://example.com/hook")]
    url: String,
    /// What deliveries are signed with: `whsec_` and 24 to 64 bytes in base64.
    #[schema(pattern = "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$")]
    secret: Option<String>,
    /// The types that are posted; all without it.
    events: Option<Vec<EventKind>>,
}

/// The webhook that counts for a tenant, and how it goes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub struct WebhookBody {
    url: String,
    /// Only when it was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    events: Vec<EventKind>,
    /// `tenant` for one of its own, `all` for the one from the settings.
    #[schema(pattern = "^(tenant|all)$")]
    scope: &'static str,
    /// `active`; `failing`: the last attempt was not taken; `stopped`: the receiver answered 410.
    #[schema(pattern = "^(active|failing|stopped)$")]
    state: &'static str,
    /// Events that wait for it.
    pending: u64,
    /// Events that were given up.
    dead: u64,
    /// Attempts that failed in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// `PUT /webhook`: the tenant's events go there from now on.
#[utoipa::path(
    put, path = "/webhook", tag = "Events",
    request_body = Put,
    responses((status = 200, description = "The webhook; with its secret if that was made now.", body = WebhookBody))
)]
pub async fn put(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Body(Put { url, secret, events }): Body<Put>,
) -> Result<Json<WebhookBody>, Problem> {
    let generated = app.webhooks.put(&tenant, url, secret, events).await?;
    let body = body(&app, &tenant).await?;
    Ok(Json(WebhookBody { secret: generated, ..body }))
}

/// `GET /webhook`: the webhook that counts for the tenant, and how it goes.
#[utoipa::path(
    get, path = "/webhook", tag = "Events",
    responses((status = 200, description = "The webhook.", body = WebhookBody))
)]
pub async fn get(State(app): State<Arc<App>>, Tenant(tenant): Tenant) -> Result<Json<WebhookBody>, Problem> {
    Ok(Json(body(&app, &tenant).await?))
}

/// `DELETE /webhook`'s answer.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDeleted)]
pub struct Deleted {
    /// Whether the webhook for all tenants counts now: `all`, or `none`.
    #[schema(pattern = "^(all|none)$")]
    scope: &'static str,
}

/// `DELETE /webhook`: removes the tenant's own webhook.
#[utoipa::path(
    delete, path = "/webhook", tag = "Events",
    responses((status = 200, description = "It is removed.", body = Deleted))
)]
pub async fn delete(State(app): State<Arc<App>>, Tenant(tenant): Tenant) -> Result<Json<Deleted>, Problem> {
    if !app.webhooks.delete(&tenant).await? {
        return Err(not_found("This tenant has no webhook of its own."));
    }
    let left = app.webhooks.summary(&tenant).await?;
    Ok(Json(Deleted { scope: if left.is_some() { "all" } else { "none" } }))
}

/// `POST /webhook/retry`'s answer.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookRestarted)]
pub struct Restarted {
    /// How many events are offered again.
    restarted: usize,
}

/// `POST /webhook/retry`: offers again what was given up.
#[utoipa::path(
    post, path = "/webhook/retry", tag = "Events",
    responses((status = 200, description = "It is offered again.", body = Restarted))
)]
pub async fn retry(State(app): State<Arc<App>>, Tenant(tenant): Tenant) -> Result<Json<Restarted>, Problem> {
    if app.webhooks.summary(&tenant).await?.is_none() {
        return Err(not_found("There is no webhook for this tenant."));
    }
    Ok(Json(Restarted { restarted: app.webhooks.retry(&tenant).await? }))
}

async fn body(app: &App, tenant: &TenantId) -> Result<WebhookBody, Problem> {
    let found = app.webhooks.summary(tenant).await?;
    let (webhook, own, summary) = found.ok_or_else(|| not_found("There is no webhook for this tenant."))?;
    let state = summary.state;
    Ok(WebhookBody {
        url: webhook.url,
        secret: None,
        events: webhook.events.unwrap_or_else(|| EventKind::ALL.to_vec()),
        scope: if own { "tenant" } else { "all" },
        state: match state.failures {
            _ if state.stopped => "stopped",
            0 => "active",
            _ => "failing",
        },
        pending: summary.pending,
        dead: summary.dead,
        failures: Some(state.failures).filter(|failures| *failures > 0),
        next_attempt_at: state.next_attempt_at.filter(|at| *at > app.manager.store().clock().now()).map(timestamp),
        last_error: state.last_error,
    })
}

fn not_found(message: &str) -> Problem {
    Problem::new(ErrorCode::WebhookNotFound, message)
}
