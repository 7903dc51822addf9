//! `POST /send`'s body: JSON, or a form whose file goes to the disk while it comes in.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    body::{BodyDataStream, Bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{
        HeaderMap,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
};
use futures_util::{StreamExt, stream};
use multer::{Field, Multipart};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    http::{
        App,
        body::{self, Raw},
        budget::Reserved,
        caller::Tenant,
        json,
        problem::Problem,
        send::{self, body::SendRequest, validate},
        unknown::{Unknown, is_strict, understood},
    },
    media::{NotTaken, kind::Claim, names, shelf::Taken},
    model::{error_code::ErrorCode, message::Idempotency, tenant::TenantId},
};

/// How much all but the file may hold, in bytes, with what stands between the parts.
const AROUND: u64 = 1024 * 1024;
/// The longest text field, in bytes: the longest message in the longest letters.
const MAX_TEXT: usize = 4 * 65_536;
/// How much may come without a field in it, in bytes, before the first part or in the head of one: the parser holds it
/// all.
const MAX_HEAD: usize = 64 * 1024;
/// How much of that the parser is given at a time.
const PIECE: usize = 16 * 1024;
/// What a line must carry at least, in bytes per second.
const SLOWEST: u64 = 64 * 1024;
/// What decides what the file is, and so must come before it.
const BEFORE: [&str; 5] = ["mimetype", "voice", "sticker", "document", "gif"];

/// `POST /send`'s body as a form. What says what the file is comes before it; the other fields may come in any order.
#[derive(ToSchema)]
#[schema(as = SendForm, rename_all = "camelCase")]
#[allow(dead_code, reason = "for the document: the parts are read one after the other")]
pub struct Form {
    /// As in JSON.
    to: String,
    /// The text below the media.
    message: Option<String>,
    /// Another name for `message`.
    caption: Option<String>,
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
    /// As in JSON, as `true` or `false`; before the file.
    gif: Option<bool>,
    /// As in JSON.
    reply_to: Option<String>,
    /// As in JSON, with commas between them.
    mentions: Option<String>,
    /// As in JSON.
    reference: Option<String>,
    /// As in JSON.
    expires_in: Option<u64>,
    /// As in JSON.
    idempotency_key: Option<String>,
}

/// What is to be sent, from JSON or from a form.
pub struct SendBody {
    /// The call.
    pub send: SendRequest,
    /// What was passed over, in the body and in the query.
    pub unknown: Unknown,
    /// What it takes of the memory for bodies.
    pub memory: Reserved,
}

impl FromRequest<Arc<App>> for SendBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("multipart/"));
        if !is_form {
            return from_json(request, app).await;
        }
        let unknown = Unknown::in_query(request.extensions());
        let boundary = content_type.and_then(|kind| multer::parse_boundary(kind).ok());
        let boundary = boundary.ok_or_else(|| wrong("the body is not multipart/form-data with a boundary"))?;
        let limit = app.manager.media().highest_limit() + AROUND;
        if body::content_length(request.headers()).is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let (mut parts, body) = request.into_parts();
        let Tenant(tenant) = Tenant::from_request_parts(&mut parts, app).await?;
        let incoming = Incoming::new(body.into_data_stream(), limit, app.read_timeout);
        let form = Multipart::new(incoming.bytes().fuse(), boundary);
        let mut memory = app.bodies.begin(&tenant, 0)?;
        let send = read(form, &incoming, app, &tenant, &parts.headers, &mut memory).await?;
        Ok(Self { send, unknown, memory })
    }
}

async fn from_json(request: Request, app: &Arc<App>) -> Result<SendBody, Problem> {
    let in_query = Unknown::in_query(request.extensions());
    let (tolerant, limit) = (!is_strict(request.headers()), app.body_limit);
    let Raw { bytes, memory } = Raw::from_request(request, app).await?;
    let length = bytes.len();
    let read = body::aside(length, move || {
        let (send, unknown) = understood(json::parse::<SendRequest>(&bytes), "SendRequest", tolerant)?;
        body::check_size(length, send.base64_len(), limit)?;
        let (send, stray) = if tolerant { send.without_stray_caption() } else { (send, Unknown::default()) };
        Ok((send, unknown.and(stray)))
    });
    let (send, unknown) = read.await?.map_err(|problem: Problem| problem.warned(&in_query))?;
    Ok(SendBody { send, unknown: in_query.and(unknown), memory })
}

fn too_large(limit: u64) -> Problem {
    Problem::too_large(usize::try_from(limit).unwrap_or(usize::MAX), "")
}

async fn read(
    mut form: Multipart<'_>,
    incoming: &Incoming,
    app: &App,
    tenant: &TenantId,
    headers: &HeaderMap,
    memory: &mut Reserved,
) -> Result<SendRequest, Problem> {
    let (mut fields, mut taken) = (Map::new(), None::<(Taken, Option<String>)>);
    loop {
        incoming.seek();
        let field = form.next_field().await.map_err(|error| incoming.problem(&error))?;
        let Some(field) = field else { break };
        incoming.found();
        let name = field.name().unwrap_or_default().to_owned();
        if taken.is_some() && BEFORE.contains(&name.as_str()) {
            return Err(wrong(format!("`{name}` says what the file is, so it must come before `media`")));
        }
        if fields.contains_key(&name) || (name == "media" && taken.is_some()) {
            return Err(wrong(format!("`{name}` is there more than once")));
        }
        if name == "media" {
            let claim = claim(&fields, &field)?;
            let key = fields.get("idempotencyKey").and_then(Value::as_str).map(str::to_owned);
            check_caller(app, tenant, validate::key(headers, key)?).await?;
            let disposition = field.headers().get(CONTENT_DISPOSITION);
            let filename = disposition.and_then(|value| names::from_disposition(value.as_bytes()));
            let bytes = stream::unfold(Some(field), |field| async {
                let mut field = field?;
                match field.chunk().await {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(field))),
                    Ok(None) => None,
                    Err(_) => Some((Err(NotTaken::BrokenOff), None)),
                }
            });
            let bytes = app.manager.media().take(tenant, &claim, bytes).await;
            let bytes = bytes.map_err(|not_taken| match not_taken {
                NotTaken::BrokenOff => incoming.broken_off(),
                not_taken => not_taken.into(),
            })?;
            taken = Some((bytes, filename));
        } else {
            let text = text(field).await.map_err(|error| match error {
                Some(error) => incoming.problem(&error),
                None => wrong(format!("`{name}` is longer than {MAX_TEXT} bytes, or not UTF-8")),
            })?;
            memory.grow(text.len())?;
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
    let body = serde_json::from_value::<SendRequest>(fields.into());
    let body = body.map_err(|error| wrong(json::in_words(&error.to_string())))?;
    Ok(body.with_bytes(bytes))
}

/// Nothing is taken for nobody: the session accepts messages, or the call was made before and gets its first answer,
/// whatever the session is by now. Whether it is the same call shows when the bytes are here.
async fn check_caller(app: &App, tenant: &TenantId, key: Option<String>) -> Result<(), Problem> {
    let call = key.map(|key| Idempotency { key, fingerprint: Default::default() });
    let known = app.manager.known(tenant, vec![call]).await?;
    if known.iter().any(Option::is_some) {
        return Ok(());
    }
    send::accepting(app, tenant).map(drop)
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
        gif: set("gif"),
    })
}

/// A field as it would stand in JSON.
pub(crate) fn value(name: &str, text: String) -> Result<Value, Problem> {
    match name {
        "to" | "message" | "caption" | "mimetype" | "filename" | "replyTo" | "reference" | "idempotencyKey" => {
            Ok(text.into())
        }
        "mentions" => Ok(text.split(',').map(str::trim).filter(|number| !number.is_empty()).collect()),
        "voice" | "sticker" | "document" | "gif" => match text.as_str() {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(wrong(format!("`{name}` is true or false"))),
        },
        "expiresIn" => text.parse::<u64>().map(Value::from).map_err(|_| wrong("`expiresIn` is a number of seconds")),
        name => Err(Unknown::form_field(name).refused()),
    }
}

/// A text field; nothing as the error if it is too long, or no text.
async fn text(mut field: Field<'_>) -> Result<String, Option<multer::Error>> {
    let mut text = Vec::new();
    while let Some(bytes) = field.chunk().await.map_err(Some)? {
        if text.len() + bytes.len() > MAX_TEXT {
            return Err(None);
        }
        text.extend_from_slice(&bytes);
    }
    // Forms end lines as mail does, whatever was written: Node's do, and browsers'.
    String::from_utf8(text).map(|text| text.replace("\r\n", "\n")).map_err(|_| None)
}

/// A form's bytes on their way to the parser, and why they ended before their end.
#[derive(Clone)]
struct Incoming {
    coming: Arc<tokio::sync::Mutex<Coming>>,
    progress: Arc<Mutex<Progress>>,
    why: Arc<OnceLock<Problem>>,
}

struct Coming {
    body: BodyDataStream,
    /// What has come, and the parser was not given yet.
    rest: Bytes,
    /// How much has come.
    length: u64,
    limit: u64,
    patience: Duration,
}

/// How far the present field is: from when the parser began to look for it.
struct Progress {
    /// Whether the parser still looks for it.
    seeking: bool,
    since: Instant,
    /// How many bytes the parser was given.
    given: usize,
    /// How long the caller was waited for. The time that the service takes itself is not the caller's.
    waited: Duration,
}

impl Progress {
    fn begin() -> Self {
        Self { seeking: true, since: Instant::now(), given: 0, waited: Duration::ZERO }
    }
}

impl Incoming {
    fn new(body: BodyDataStream, limit: u64, patience: Duration) -> Self {
        let coming = Coming { body, rest: Bytes::new(), length: 0, limit, patience };
        Self { coming: Arc::new(coming.into()), progress: Arc::new(Progress::begin().into()), why: Arc::default() }
    }

    /// The bytes, for the parser.
    fn bytes(&self) -> impl futures_util::Stream<Item = io::Result<Bytes>> + std::marker::Send + use<> {
        stream::unfold(Some(self.clone()), |incoming| async {
            let incoming = incoming?;
            // The parser takes all that is there at once, and would hold it all. After each part it is to work first.
            tokio::task::yield_now().await;
            match incoming.next().await {
                Ok(bytes) => bytes.map(|bytes| (Ok(bytes), Some(incoming))),
                Err(problem) => {
                    let _ = incoming.why.set(problem);
                    Some((Err(io::ErrorKind::ConnectionAborted.into()), None))
                }
            }
        })
    }

    async fn next(&self) -> Result<Option<Bytes>, Problem> {
        let mut coming = self.coming.lock().await;
        if coming.rest.is_empty() {
            let Some(bytes) = self.receive(&mut coming).await? else { return Ok(None) };
            coming.length += bytes.len() as u64;
            if coming.length > coming.limit {
                return Err(too_large(coming.limit));
            }
            coming.rest = bytes;
        }
        let mut progress = self.progress();
        let most = match progress.seeking {
            true if progress.given > MAX_HEAD => {
                return Err(wrong(format!("there are {MAX_HEAD} bytes and no field in them")));
            }
            true => PIECE.min(coming.rest.len()),
            false => coming.rest.len(),
        };
        progress.given += most;
        Ok(Some(coming.rest.split_to(most)))
    }

    /// What comes next. It may take a while, but no line may be slower than the slowest.
    async fn receive(&self, coming: &mut Coming) -> Result<Option<Bytes>, Problem> {
        let patience = {
            let progress = self.progress();
            let earned = coming.patience + Duration::from_secs(progress.given as u64 / SLOWEST);
            earned.saturating_sub(progress.waited).min(coming.patience)
        };
        let begun = Instant::now();
        let came = tokio::time::timeout(patience, coming.body.next()).await;
        {
            let mut progress = self.progress();
            let waited = begun.max(progress.since).elapsed();
            progress.waited += waited;
        }
        came.map_err(|_| Problem::too_slow())?.transpose().map_err(|_| NotTaken::BrokenOff.into())
    }

    /// The parser begins to look for a field.
    fn seek(&self) {
        *self.progress() = Progress::begin();
    }

    /// The parser has found the field.
    fn found(&self) {
        self.progress().seeking = false;
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }

    fn broken_off(&self) -> Problem {
        self.why.get().cloned().unwrap_or_else(|| NotTaken::BrokenOff.into())
    }

    fn problem(&self, error: &multer::Error) -> Problem {
        match error {
            multer::Error::StreamReadFailed(_)
            | multer::Error::IncompleteStream
            | multer::Error::IncompleteHeaders
            | multer::Error::IncompleteFieldData { .. } => self.broken_off(),
            _ => wrong("the body is not multipart/form-data as RFC 7578 has it"),
        }
    }
}

fn wrong(why: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidMultipart, why)
}
