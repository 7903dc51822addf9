//! `GET /sessions`: all tenants and their states, a page at a time.

use crate::session::Session;
use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        App,
        problem::Problem,
        query::{Query, invalid},
    },
    model::{
        session_state::{State as SessionState, Status},
        tenant::TenantId,
    },
    util::clock::timestamp,
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Only those that are in this state now.
    #[param(value_type = Option<SessionState>)]
    state: Option<String>,
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
    /// The account's number, where it is linked.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
}

/// `GET /sessions`: all tenants that have a session, in the order of their ids, a page at a time.
#[utoipa::path(
    get, path = "/sessions", tag = "Sessions",
    params(Page),
    responses((status = 200, description = "A page of sessions.", body = Sessions))
)]
pub async fn get(State(app): State<Arc<App>>, Query(page): Query<Page>) -> Result<Json<Sessions>, Problem> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid(format!("limit: must be from 1 to {MAX_LIMIT}")));
    }
    let after = page.cursor.map(|cursor| cursor.parse::<TenantId>()).transpose();
    let after = after.map_err(|_| invalid("cursor: not one that this service gave"))?;
    let state = page.state.map(|word| {
        let known = || SessionState::ALL.map(SessionState::as_str).join(", ");
        let state = SessionState::ALL.into_iter().find(|state| state.as_str() == word);
        state.ok_or_else(|| invalid(format!("state: must be one of {}", known())))
    });
    let state = state.transpose()?;
    let wanted = |session: &Session| state.is_none_or(|state| session.snapshot().state == state);
    let mut sessions = app.manager.list_only(after.as_ref(), limit + 1, wanted);
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
            phone: snapshot.phone,
        }
    });
    Ok(Json(Sessions { sessions: entries.collect(), next_cursor }))
}
