//! Faults and counters.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::App;
use super::fault_spec::FaultSpec;
use super::phones::OfPhone;
use super::problem::Problem;
use crate::world::{Phone, Totals};

pub(super) async fn list(State(app): State<App>) -> Json<Vec<FaultSpec>> {
    Json(app.world.faults().iter().map(FaultSpec::from).collect())
}

pub(super) async fn add(
    State(app): State<App>,
    body: Result<Json<FaultSpec>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    for mut fault in body?.0.into_faults()? {
        if let Some(phone) = fault.phone.take() {
            fault.phone = Some(app.world.account(&phone).ok_or_else(Problem::no_account)?.phone);
        }
        app.world.add_fault(fault);
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn clear(
    State(app): State<App>,
    query: Result<Query<OfPhone>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let phone = query?.0.phone.as_deref().map(Phone::parse).transpose()?;
    let registered = phone.map(|phone| app.world.account(&phone).map_or(phone, |account| account.phone));
    app.world.clear_faults(registered.as_ref());
    Ok(StatusCode::NO_CONTENT)
}

/// The answer of `GET /admin/stats`.
#[derive(Debug, Serialize)]
pub(super) struct Stats {
    #[serde(flatten)]
    totals: Totals,
    /// By the number under which each account is registered.
    phones: BTreeMap<String, Totals>,
}

pub(super) async fn stats(State(app): State<App>) -> Json<Stats> {
    let phones = app.world.totals_by_phone().into_iter().map(|(phone, totals)| (phone.to_string(), totals));
    Json(Stats { totals: app.world.totals(), phones: phones.collect() })
}
