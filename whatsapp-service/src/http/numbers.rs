//! `POST /numbers/check`: who is on WhatsApp.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{App, body::Body, caller::Tenant, problem::Problem},
    model::{
        address::{Names, Person},
        error_code::ErrorCode,
    },
};

/// How many numbers one call may ask for.
const MAX_NUMBERS: usize = 50;

/// `POST /numbers/check`'s body.
#[derive(Deserialize, ToSchema)]
#[schema(as = NumbersRequest)]
pub struct Numbers {
    /// Numbers and LIDs, as in a message's `to`.
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
    /// The number or LID as it was given.
    input: String,
    /// Whether somebody is on WhatsApp under it.
    registered: bool,
    /// The number that WhatsApp knows them by, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<String>,
    /// Their LID, where it is known: WhatsApp's other name for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    lid: Option<String>,
}

/// `POST /numbers/check`: which of these numbers and LIDs are on WhatsApp, and by which names it knows them.
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
    let invalid = |why: String| Problem::new(ErrorCode::InvalidNumbers, why);
    if !(1..=MAX_NUMBERS).contains(&numbers.len()) {
        return Err(invalid(format!("numbers: needs 1 to {MAX_NUMBERS} of them")));
    }
    let (mut people, mut bad) = (Vec::with_capacity(numbers.len()), Vec::new());
    for (at, number) in numbers.iter().enumerate() {
        match Person::parse(number) {
            Ok(person) => people.push(person),
            Err(error) => bad.push(error.of(&format!("numbers[{at}]"))),
        }
    }
    if !bad.is_empty() {
        return Err(invalid(bad.join("; ")));
    }
    let session = app.manager.get(&tenant).ok_or_else(Problem::no_session)?;
    let found = session.check_numbers(&people).await?;
    let checked = numbers.into_iter().zip(found).map(|(input, names)| {
        let registered = names.is_some();
        let Names { number, lid } = names.unwrap_or_default();
        let (number, lid) = (number.map(|number| number.digits().into()), lid.map(|lid| lid.digits().into()));
        Checked { input, registered, number, lid }
    });
    Ok(Json(Answer { numbers: checked.collect() }))
}
