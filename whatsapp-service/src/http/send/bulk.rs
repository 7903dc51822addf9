//! `POST /send/bulk`: many messages in one call.

use crate::{
    http::{
        App,
        body::{self, Raw},
        caller::Tenant,
        json,
        problem::Problem,
        request_log::Noted,
        send::{
            Answer, accepted, accepting,
            body::SendRequest,
            take, unforeseen,
            validate::{ValidatedSend, validate},
        },
        unknown::understood,
    },
    model::error_code::ErrorCode,
    session::outbox::Taken,
};
use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use std::{fmt, sync::Arc};
use utoipa::ToSchema;

/// How many messages one call may hold.
const MAX_BULK: usize = 1000;
/// The longest reference of a message that is not accepted, in bytes of JSON: a longer one is not told again.
const MAX_TOLD: usize = 2048;

/// `POST /send/bulk`'s body.
#[derive(Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = BulkRequest)]
pub struct Bulk<'a> {
    /// Each is looked at by itself: a bad one refuses nothing else.
    #[serde(borrow, deserialize_with = "a_few_more_than_allowed")]
    #[schema(value_type = Vec<SendRequest>, min_items = 1, max_items = 1000)]
    messages: Vec<&'a RawValue>,
}

/// Reads the messages of a call, as they stand there: what is wrong with one shows when it is read by itself. No more of
/// them are kept than it takes to see that there are too many.
pub(crate) fn a_few_more_than_allowed<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<&'de RawValue>, D::Error> {
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
pub(crate) enum Entry {
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
pub(crate) type Entries = (Vec<Result<Option<Value>, (Problem, Option<Value>)>>, Vec<ValidatedSend>);

/// Reads the body of a call with many messages.
pub(crate) fn entries(bytes: &[u8], limit: usize) -> Result<Entries, Problem> {
    let (Bulk { messages }, _) = understood(json::parse(bytes), "BulkRequest", false)?;
    if !(1..=MAX_BULK).contains(&messages.len()) {
        let why = format!("messages: needs 1 to {MAX_BULK} of them");
        return Err(Problem::new(ErrorCode::InvalidMessages, why));
    }
    let (mut entries, mut wishes, mut base64) = (Vec::with_capacity(messages.len()), Vec::new(), 0);
    for message in messages {
        let read = entry(message).inspect(|send| base64 += send.base64_len());
        entries.push(match read.map(|send| (send.reference.clone(), validate(send))) {
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

pub(crate) fn entry(message: &RawValue) -> Result<SendRequest, Problem> {
    Ok(understood(json::parse(message.get().as_bytes()), "SendRequest", false)?.0)
}

/// The name that the caller has for a message with which something is wrong, if that can be read.
pub(crate) fn reference(message: &RawValue) -> Option<Value> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        reference: Option<&'a RawValue>,
    }
    let Named { reference } = serde_json::from_str(message.get()).ok()?;
    reference.filter(|told| told.get().len() <= MAX_TOLD).and_then(|told| serde_json::from_str(told.get()).ok())
}
