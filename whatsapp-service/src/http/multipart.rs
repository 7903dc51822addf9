//! `POST /send`'s body: JSON, or a form whose file goes to the disk while it comes in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body as RawBody,
    extract::{FromRequest, FromRequestParts, Request},
    http::header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use futures_util::{StreamExt, stream};
use multer::{Field, Multipart};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    App,
    caller::{Body, Tenant},
    problem::Problem,
    send::Send,
};
use crate::media::{Claim, NotTaken, Taken};

/// How much all but the file may hold, in bytes, with what stands between the parts.
const AROUND: u64 = 1024 * 1024;
/// The longest text field, in bytes: the longest message in the longest letters.
const MAX_TEXT: usize = 4 * 65_536;
/// What decides what the file is, and so must come before it.
const BEFORE: [&str; 4] = ["mimetype", "voice", "sticker", "document"];

/// `POST /send`'s body as a form. What says what the file is comes before it; the other fields may come in any order.
#[derive(ToSchema)]
#[schema(as = SendForm, rename_all = "camelCase")]
#[allow(dead_code, reason = "for the document: the parts are read one after the other")]
pub struct Form {
    /// As in JSON.
    to: String,
    /// The text below the media.
    message: Option<String>,
    /// The file. Its name and type are used if `filename` and `mimetype` are not given.
    #[schema(value_type = String, format = Binary)]
    media: Vec<u8>,
    /// As `media.mimetype`; before the file.
    mimetype: Option<String>,
    /// As `media.filename`.
    filename: Option<String>,
    /// As in JSON, as `true` or `false`; before the file.
    voice: Option<bool>,
    /// As in JSON, as `true` or `false`; before the file.
    sticker: Option<bool>,
    /// As in JSON, as `true` or `false`; before the file.
    document: Option<bool>,
    /// As in JSON.
    reply_to: Option<String>,
    /// As in JSON.
    reference: Option<String>,
    /// As in JSON.
    expires_in: Option<u64>,
    /// As in JSON.
    idempotency_key: Option<String>,
}

/// What is to be sent, from JSON or from a form.
pub struct SendBody(pub Send);

impl FromRequest<Arc<App>> for SendBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("multipart/"));
        if !is_form {
            return Body::from_request(request, app).await.map(|Body(body)| Self(body));
        }
        let boundary = content_type.and_then(|kind| multer::parse_boundary(kind).ok());
        let boundary = boundary.ok_or_else(|| wrong("the body is not multipart/form-data with a boundary"))?;
        let limit = app.manager.media().highest_limit() + AROUND;
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > limit) {
            return Err(Problem::too_large(usize::try_from(limit).unwrap_or(usize::MAX)));
        }
        let (mut parts, body) = request.into_parts();
        let Tenant(tenant) = Tenant::from_request_parts(&mut parts, app).await?;
        let incoming = Incoming::default();
        let mut form = Multipart::new(incoming.watch(body, limit, app.read_timeout).fuse(), boundary);
        let (mut fields, mut taken) = (Map::new(), None::<(Taken, Option<String>)>);
        while let Some(field) = form.next_field().await.map_err(|error| incoming.problem(&error, limit))? {
            let name = field.name().unwrap_or_default().to_owned();
            if taken.is_some() && BEFORE.contains(&name.as_str()) {
                return Err(wrong(format!("`{name}` says what the file is, so it must come before `media`")));
            }
            if fields.contains_key(&name) || (name == "media" && taken.is_some()) {
                return Err(wrong(format!("`{name}` is there more than once")));
            }
            if name == "media" {
                let claim = claim(&fields, &field)?;
                let filename = field.file_name().map(plain_name);
                let bytes = stream::unfold(Some(field), |field| async {
                    let mut field = field?;
                    match field.chunk().await {
                        Ok(Some(bytes)) => Some((Ok(bytes), Some(field))),
                        Ok(None) => None,
                        Err(_) => Some((Err(NotTaken::BrokenOff), None)),
                    }
                });
                let bytes = app.manager.media().take(&tenant, &claim, bytes).await;
                let bytes = bytes.map_err(|not_taken| match not_taken {
                    NotTaken::BrokenOff => incoming.broken_off(limit),
                    not_taken => not_taken.into(),
                })?;
                taken = Some((bytes, filename.filter(|name| !name.is_empty())));
            } else {
                let text = text(field, &name).await.map_err(|error| match error {
                    Some(error) => incoming.problem(&error, limit),
                    None => wrong(format!("`{name}` is longer than {MAX_TEXT} bytes, or not UTF-8")),
                })?;
                let value = value(&name, text)?;
                fields.insert(name, value);
            }
        }
        let (bytes, filename) = taken.ok_or_else(|| wrong("there is no file: its part is called `media`"))?;
        let mut media = Map::new();
        for name in ["mimetype", "filename"] {
            media.extend(fields.remove(name).map(|value| (name.to_owned(), value)));
        }
        if let Some(filename) = filename {
            media.entry("filename").or_insert(filename.into());
        }
        fields.insert("media".into(), media.into());
        let body = serde_json::from_value::<Send>(fields.into());
        let body = body.map_err(|error| wrong(error.to_string()))?;
        Ok(Self(body.with_bytes(bytes)))
    }
}

/// What the fields before the file say of it.
fn claim(fields: &Map<String, Value>, file: &Field<'_>) -> Result<Claim, Problem> {
    let set = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or_default();
    Ok(Claim {
        mimetype: fields.get("mimetype").and_then(Value::as_str).map(str::to_owned),
        hint: file.content_type().map(ToString::to_string),
        voice: set("voice"),
        sticker: set("sticker"),
        document: set("document"),
    })
}

/// A field as it would stand in JSON.
fn value(name: &str, text: String) -> Result<Value, Problem> {
    match name {
        "to" | "message" | "mimetype" | "filename" | "replyTo" | "reference" | "idempotencyKey" => Ok(text.into()),
        "voice" | "sticker" | "document" => match text.as_str() {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(wrong(format!("`{name}` is true or false"))),
        },
        "expiresIn" => text.parse::<u64>().map(Value::from).map_err(|_| wrong("`expiresIn` is a number of seconds")),
        _ => Err(wrong("there is a field that a form can't have: see POST /send")),
    }
}

/// A text field; nothing as the error if it is too long, or no text.
async fn text(mut field: Field<'_>, _name: &str) -> Result<String, Option<multer::Error>> {
    let mut text = Vec::new();
    while let Some(bytes) = field.chunk().await.map_err(Some)? {
        if text.len() + bytes.len() > MAX_TEXT {
            return Err(None);
        }
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).map_err(|_| None)
}

/// The last part of a name: some send the whole path.
fn plain_name(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    name.chars().filter(|character| !character.is_control()).take(255).collect()
}

/// Why a body ended before its end.
#[derive(Clone, Default)]
struct Incoming {
    late: Arc<AtomicBool>,
    long: Arc<AtomicBool>,
}

impl Incoming {
    /// The body's bytes. Each part of them may take so long.
    fn watch(
        &self,
        body: RawBody,
        limit: u64,
        patience: Duration,
    ) -> impl futures_util::Stream<Item = Result<axum::body::Bytes, std::io::Error>> + std::marker::Send + use<> {
        let (late, long) = (self.late.clone(), self.long.clone());
        let body = Box::pin(body.into_data_stream());
        stream::unfold((Some(body), 0), move |(body, length)| {
            let (late, long) = (late.clone(), long.clone());
            async move {
                let mut body = body?;
                // The parser takes all that is there at once, and would hold it all. After each part it is to work first.
                tokio::task::yield_now().await;
                let broken = || Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted));
                match tokio::time::timeout(patience, body.next()).await {
                    Ok(Some(Ok(bytes))) => {
                        let length = length + bytes.len() as u64;
                        if length > limit {
                            long.store(true, Ordering::Relaxed);
                            return Some((broken(), (None, length)));
                        }
                        Some((Ok(bytes), (Some(body), length)))
                    }
                    Ok(None) => None,
                    Ok(Some(Err(_))) => Some((broken(), (None, length))),
                    Err(_) => {
                        late.store(true, Ordering::Relaxed);
                        Some((broken(), (None, length)))
                    }
                }
            }
        })
    }

    fn broken_off(&self, limit: u64) -> Problem {
        if self.late.load(Ordering::Relaxed) {
            Problem::too_slow()
        } else if self.long.load(Ordering::Relaxed) {
            Problem::too_large(usize::try_from(limit).unwrap_or(usize::MAX))
        } else {
            NotTaken::BrokenOff.into()
        }
    }

    fn problem(&self, error: &multer::Error, limit: u64) -> Problem {
        match error {
            multer::Error::StreamReadFailed(_)
            | multer::Error::IncompleteStream
            | multer::Error::IncompleteHeaders
            | multer::Error::IncompleteFieldData { .. } => self.broken_off(limit),
            _ => wrong("the body is not multipart/form-data as RFC 7578 has it"),
        }
    }
}

fn wrong(why: impl Into<String>) -> Problem {
    Problem::bad_request("invalid_multipart", why)
}
