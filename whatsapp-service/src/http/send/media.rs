//! Media, as a call names it: by its URL, as base64, or as a part of a form.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    http::{App, base64::Base64, problem::Problem},
    media::{NotTaken, fetch::FetchFailure, kind::Claim, names, shelf::Taken},
    model::{
        content::{Content, ContentKind, Media},
        error_code::ErrorCode,
        media::MediaKind,
        tenant::TenantId,
    },
};

/// How many URLs of a call are read from at once.
const SIDE_BY_SIDE: usize = 4;

/// Media by its URL or as base64: one of both.
#[derive(Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = SendMedia)]
pub struct Attachment {
    /// Where the bytes are fetched from, with http or https. It must lead to a public address.
    #[schema(max_length = 2048)]
    pub url: Option<String>,
    /// The bytes themselves, as base64 or as a `data:` URI.
    #[schema(value_type = Option<String>, min_length = 1, content_encoding = "base64")]
    pub base64: Option<Base64>,
    /// What they are; without it, the bytes tell.
    #[schema(max_length = 128)]
    pub mimetype: Option<String>,
    /// What they are called.
    #[schema(min_length = 1, max_length = 255)]
    pub filename: Option<String>,
}

/// Where the bytes are.
pub enum Source {
    /// Somewhere else.
    Url(String),
    /// In the call, as base64.
    Base64(Base64),
    /// On the disk already.
    Here(Box<Taken>),
}

/// A message with media whose bytes may not be here yet.
pub struct Wanted {
    /// The bytes.
    pub source: Source,
    /// What they are said to be.
    pub claim: Claim,
    /// What they are called.
    pub filename: Option<String>,
    /// The text below them.
    pub caption: Option<String>,
    /// The id of the message that they answer.
    pub reply_to: Option<String>,
    /// Who is mentioned in the text.
    pub mentions: Vec<String>,
}

impl Wanted {
    /// What makes the same call again the same: never what was found where a URL leads.
    pub fn identity(&self) -> Value {
        let source = match &self.source {
            Source::Url(url) => json!({ "url": url }),
            Source::Base64(text) => json!({"base64": hex::encode(text.digest())}),
            Source::Here(taken) => json!({"sha256": hex::encode(&taken.given)}),
        };
        let Claim { mimetype, voice, sticker, document, gif, .. } = &self.claim;
        let mut identity = json!({
            "media": [source, mimetype, self.filename, voice, sticker, document], "caption": self.caption,
            "replyTo": self.reply_to,
        });
        // The fingerprints of the time before these are in databases.
        if !self.mentions.is_empty() {
            identity["mentions"] = json!(self.mentions);
        }
        if *gif {
            identity["gif"] = true.into();
        }
        identity
    }

    /// What is the same for all messages that a URL is fetched once for; nothing if the bytes are not behind a URL.
    fn place(&self) -> Option<String> {
        match &self.source {
            Source::Url(url) => Some(format!("{url} {:?}", self.claim)),
            Source::Base64(_) | Source::Here(_) => None,
        }
    }

    /// Has the bytes on the disk, and says what the message says. What is behind a URL is `fetched` already.
    pub async fn content(self, app: &App, tenant: &TenantId, fetched: &Fetched) -> Result<(Content, Taken), Problem> {
        let place = self.place();
        let Self { source, claim, filename, caption, reply_to, mentions } = self;
        let taken = match source {
            Source::Here(taken) => *taken,
            Source::Base64(text) => app.manager.media().take(tenant, &claim, text.decoded()).await?,
            Source::Url(_) => match place.and_then(|place| fetched.0.get(&place)) {
                Some(Ok(taken)) => taken.again(),
                Some(Err(problem)) => return Err(problem.clone()),
                None => return Err(NotTaken::from(FetchFailure::TooSlow).into()),
            },
        };
        if caption.is_some() && !taken.kind.takes_caption() {
            let kind = taken.kind.as_str();
            let why = format!("`message` and `media` of the kind {kind} don't go together: it has no text below it");
            return Err(Problem::new(ErrorCode::InvalidContent, why));
        }
        let parcel = taken.parcel.clone();
        let (filename, mimetype) = named(filename.or_else(|| taken.name.clone()), &taken);
        let media = Media {
            kind: taken.kind,
            mimetype,
            filename,
            size: parcel.size,
            sha256: hex::encode(&parcel.sha256),
            width: parcel.width,
            height: parcel.height,
            seconds: parcel.seconds,
            gif: claim.gif,
            caption,
            parcel,
        };
        Ok((Content { reply_to, mentions, ..Content::alone(ContentKind::Media(media.into())) }, taken))
    }
}

/// What media is called, and its type: of a document, either may tell the other.
fn named(filename: Option<String>, taken: &Taken) -> (Option<String>, String) {
    let mut mimetype = taken.mimetype.clone();
    if taken.kind != MediaKind::Document {
        return (filename, mimetype);
    }
    if !taken.said
        && let Some(better) = filename.as_ref().and_then(|name| names::better_type(name, &mimetype))
    {
        mimetype = better.into();
    }
    let filename = filename.unwrap_or_else(|| "document".into());
    (Some(names::with_extension(filename, &mimetype)), mimetype)
}

/// What came of the URLs of a call.
pub struct Fetched(HashMap<String, Result<Taken, Problem>>);

impl Fetched {
    /// Has the bytes behind the URLs of these on the disk: each is fetched once, a few side by side, and all of them
    /// within `MEDIA_FETCH_TIMEOUT`.
    pub async fn from<'a>(app: &App, tenant: &TenantId, all: impl Iterator<Item = &'a Wanted>) -> Self {
        let deadline = Instant::now() + app.fetch_timeout;
        let mut places = HashSet::new();
        let wanted: Vec<_> = all
            .filter_map(|wanted| match (&wanted.source, wanted.place()) {
                (Source::Url(url), Some(place)) if places.insert(place.clone()) => {
                    Some((place, url.clone(), wanted.claim.clone()))
                }
                _ => None,
            })
            .collect();
        let fetching = wanted.into_iter().map(|(place, url, claim)| async move {
            let fetched = fetch(app, tenant, &url, claim, deadline).await;
            if let Err(NotTaken::NotFetched(failure)) = &fetched {
                tracing::info!(%tenant, reason = failure.as_str(), "media could not be fetched from its URL");
            }
            (place, fetched.map_err(Problem::from))
        });
        Self(stream::iter(fetching).buffer_unordered(SIDE_BY_SIDE).collect().await)
    }
}

async fn fetch(app: &App, tenant: &TenantId, url: &str, claim: Claim, deadline: Instant) -> Result<Taken, NotTaken> {
    let shelf = app.manager.media();
    let fetched = shelf.fetch(tenant, url, deadline).await?;
    let (claim, name) = (Claim { hint: fetched.hint.clone(), ..claim }, fetched.name.clone());
    let mut taken = shelf.take(tenant, &claim, fetched.bytes()).await?;
    taken.name = name;
    Ok(taken)
}
