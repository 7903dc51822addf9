//! `POST /numbers/check`: who is on WhatsApp.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{App, body::Body, caller::Tenant, problem::Problem};
use crate::sessions::Recipient;

/// How many numbers one call may ask for.
const MAX_NUMBERS: usize = 50;

/// `POST /numbers/check`'s body.
#[derive(Deserialize, ToSchema)]
#[schema(as = NumbersRequest)]
pub struct Numbers {
    /// Numbers with the country code; only the digits count, 8 to 15 of them.
    #[schema(min_items = 1, max_items = 50)]
    numbers: Vec<String>,
}

/// `POST /numbers/check`'s answer, in the order of the question.
#[derive(Serialize, ToSchema)]
#[schema(as = NumbersAnswer)]
pub struct Answer {
    numbers: Vec<Checked>,
}

/// What WhatsApp says of a number.
#[derive(Serialize, ToSchema)]
#[schema(as = CheckedNumber)]
pub struct Checked {
    /// The number as it was given.
    input: String,
    /// Whether it is on WhatsApp.
    registered: bool,
    /// The number that WhatsApp knows it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<String>,
}

/// `POST /numbers/check`: which of these numbers are on WhatsApp, and by which number it knows them.
#[utoipa::path(
    post, path = "/numbers/check", tag = "Messages",
    request_body = Numbers,
    responses((status = 200, description = "What WhatsApp says of each number, in order.", body = Answer))
)]
pub async fn check(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Body(Numbers { numbers }): Body<Numbers>,
) -> Result<Json<Answer>, Problem> {
    let invalid = |why: String| Problem::bad_request("invalid_numbers", why);
    if !(1..=MAX_NUMBERS).contains(&numbers.len()) {
        return Err(invalid(format!("numbers: needs 1 to {MAX_NUMBERS} of them")));
    }
    let parsed: Vec<_> = numbers.iter().map(|number| Recipient::parse(number)).collect();
    let bad: Vec<_> = (0..parsed.len()).filter(|&at| parsed[at].is_err()).map(|at| format!("numbers[{at}]")).collect();
    if !bad.is_empty() {
        return Err(invalid(format!("{}: a number needs 8 to 15 digits, with the country code", bad.join(", "))));
    }
    let parsed: Vec<_> = parsed.into_iter().flatten().collect();
    let session = app.manager.get(&tenant).ok_or_else(|| Problem::session_not_found(StatusCode::CONFLICT))?;
    let found = session.check_numbers(&parsed).await?;
    let checked = numbers.into_iter().zip(found);
    let checked = checked.map(|(input, number)| Checked { input, registered: number.is_some(), number });
    Ok(Json(Answer { numbers: checked.collect() }))
}
