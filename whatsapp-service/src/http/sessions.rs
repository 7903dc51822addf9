//! `GET /sessions`: all tenants and their states, a page at a time.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{App, problem::Problem};
use crate::{
    clock::timestamp,
    sessions::{State as SessionState, Status},
    tenant::TenantId,
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Sessions on a page; 100 without it.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A page of tenants, in the order of their ids.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    sessions: Vec<Entry>,
    /// Give this as `cursor` to get the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SessionEntry)]
struct Entry {
    tenant_id: String,
    status: Status,
    state: SessionState,
    #[schema(format = DateTime)]
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// `GET /sessions`: all tenants that have a session, in the order of their ids, a page at a time.
#[utoipa::path(
    get, path = "/sessions", tag = "Sessions",
    params(Page),
    responses((status = 200, description = "A page of sessions.", body = Sessions))
)]
pub async fn get(
    State(app): State<Arc<App>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Sessions>, Problem> {
    let Query(page) = page.map_err(|error| Problem::bad_request("invalid_query", error.body_text()))?;
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request("invalid_query", format!("limit: must be from 1 to {MAX_LIMIT}")));
    }
    let after = page.cursor.map(|cursor| cursor.parse::<TenantId>()).transpose();
    let after = after.map_err(|_| Problem::bad_request("invalid_query", "cursor: not one that this service gave"))?;
    let mut sessions = app.manager.list(after.as_ref(), limit + 1);
    let more = sessions.len() > limit;
    sessions.truncate(limit);
    let next_cursor = sessions.last().filter(|_| more).map(|session| session.tenant.to_string());
    let entries = sessions.iter().map(|session| {
        let snapshot = session.snapshot();
        Entry {
            tenant_id: session.tenant.to_string(),
            status: snapshot.state.status(),
            state: snapshot.state,
            since: timestamp(snapshot.since),
            reason: snapshot.reason.map(|reason| reason.code),
        }
    });
    Ok(Json(Sessions { sessions: entries.collect(), next_cursor }))
}
