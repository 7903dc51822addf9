//! What a phone shows, and what it is made to send.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use crate::media_host::read;
use crate::world::{
    ButtonReply, ChatMessage, Draft, FlowReply, Kind, ListReply, Location, Manner, MediaDraft, Order, Phone, Product,
    Referral, TemplateReply,
};

/// The longest body: 16 MiB of base64, and what stands around it.
pub(super) const MAX_BODY: usize = 17 * 1024 * 1024;

/// The longest text that a phone writes, as in the app.
const MAX_TEXT: usize = 65_536;

/// How many options a poll has at most, as in the app.
const MAX_OPTIONS: usize = 12;

/// A file to send.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewMedia {
    base64: String,
    kind: Option<Kind>,
    mimetype: Option<String>,
    filename: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    seconds: Option<u32>,
    thumbnail: Option<String>,
    waveform: Option<Vec<u8>>,
    #[serde(default)]
    gif: bool,
    #[serde(default)]
    animated: bool,
    #[serde(default)]
    voice: bool,
    #[serde(default)]
    view_once: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewContact {
    name: String,
    phone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewReaction {
    message_id: String,
    emoji: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewEdit {
    message_id: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewRevoke {
    message_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPoll {
    name: String,
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewVote {
    message_id: String,
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTimer {
    seconds: u32,
}

/// The body of `POST /admin/accounts/{phone}/messages`: exactly one kind, and whom it goes to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewMessage {
    to: String,
    /// The text, or the caption of a file.
    #[serde(alias = "message")]
    text: Option<String>,
    media: Option<NewMedia>,
    #[serde(default)]
    voice: bool,
    location: Option<Location>,
    contact: Option<NewContact>,
    reaction: Option<NewReaction>,
    edit: Option<NewEdit>,
    revoke: Option<NewRevoke>,
    poll: Option<NewPoll>,
    vote: Option<NewVote>,
    button_reply: Option<ButtonReply>,
    template_reply: Option<TemplateReply>,
    list_reply: Option<ListReply>,
    flow_reply: Option<FlowReply>,
    order: Option<Order>,
    product: Option<Product>,
    disappearing_timer: Option<NewTimer>,
    /// An encoded message, in base64.
    raw: Option<String>,
    reply_to: Option<String>,
    referral: Option<Referral>,
    #[serde(default)]
    unavailable: bool,
}

fn bad(error: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error)
}

fn decoded(base64: &str) -> Result<Vec<u8>, Problem> {
    BASE64.decode(base64).map_err(|_| bad("base64 is not base64"))
}

fn checked(text: String) -> Result<String, Problem> {
    if text.is_empty() || text.chars().count() > MAX_TEXT {
        return Err(bad("a text has 1 to 65536 characters"));
    }
    Ok(text)
}

impl NewMedia {
    fn draft(self, voice: bool, caption: String) -> Result<Draft, Problem> {
        Ok(Draft::Media(MediaDraft {
            bytes: decoded(&self.base64)?,
            kind: if voice || self.voice { Some(Kind::Voice) } else { self.kind },
            mimetype: self.mimetype,
            filename: self.filename,
            caption,
            width: self.width,
            height: self.height,
            seconds: self.seconds,
            thumbnail: self.thumbnail.as_deref().map(decoded).transpose()?,
            waveform: self.waveform,
            gif: self.gif,
            animated: self.animated,
            view_once: self.view_once,
        }))
    }
}

impl NewPoll {
    fn draft(self) -> Result<Draft, Problem> {
        let distinct = self.options.iter().enumerate().all(|(n, option)| !self.options[..n].contains(option));
        if !(2..=MAX_OPTIONS).contains(&self.options.len()) || !distinct {
            return Err(bad("a poll has 2 to 12 options, each another one"));
        }
        Ok(Draft::Poll { name: checked(self.name)?, options: self.options })
    }
}

impl NewMessage {
    /// The one thing that the body asks for.
    fn draft(self) -> Result<Draft, Problem> {
        let Self { text, media, voice, location, contact, reaction, edit, revoke, poll, vote, raw, .. } = self;
        let Self { button_reply, template_reply, list_reply, flow_reply, order, product, disappearing_timer, .. } =
            self;
        let caption = if media.is_some() { text.clone().unwrap_or_default() } else { String::new() };
        let text = if media.is_some() { None } else { text };
        if caption.chars().count() > MAX_TEXT {
            return Err(bad("a caption has at most 65536 characters"));
        }
        let drafts = [
            media.map(|media| media.draft(voice, caption)),
            text.map(|text| Ok(Draft::Text(checked(text)?))),
            location.map(|location| Ok(Draft::Location(location))),
            contact.map(|contact| Ok(Draft::Contact { name: contact.name, phone: contact.phone })),
            reaction.map(|r| Ok(Draft::Reaction { message_id: r.message_id, emoji: r.emoji })),
            edit.map(|edit| Ok(Draft::Edit { message_id: edit.message_id, text: checked(edit.message)? })),
            revoke.map(|revoke| Ok(Draft::Revoke { message_id: revoke.message_id })),
            poll.map(NewPoll::draft),
            vote.map(|vote| Ok(Draft::Vote { message_id: vote.message_id, options: vote.options })),
            button_reply.map(|reply| Ok(reply.into())),
            template_reply.map(|reply| Ok(reply.into())),
            list_reply.map(|reply| Ok(reply.into())),
            flow_reply.map(|reply| Ok(reply.into())),
            order.map(|order| Ok(order.into())),
            product.map(|product| Ok(product.into())),
            disappearing_timer.map(|timer| Ok(Draft::Timer(timer.seconds))),
            raw.map(|raw| Ok(Draft::Raw(decoded(&raw)?))),
        ];
        let mut drafts = drafts.into_iter().flatten();
        match (drafts.next(), drafts.next()) {
            (Some(draft), None) => draft,
            (None, _) => Err(bad("the body says nothing to send")),
            (Some(_), Some(_)) => Err(bad("the body says more than one thing to send")),
        }
    }
}

pub(super) async fn list(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Vec<ChatMessage>>, Problem> {
    let messages = app.world.messages(&Phone::parse(&path?.0)?).ok_or_else(Problem::no_account)?;
    // What the phone has not looked at yet, it looks at now: the answer is about what is in the file.
    let files: Vec<_> =
        messages.iter().filter_map(|m| m.media().filter(|f| f.looked.get().is_none())).cloned().collect();
    if !files.is_empty() {
        let media = Arc::clone(&app.world.media);
        let looked = tokio::task::spawn_blocking(move || {
            for file in &files {
                let _ = media.wait(file);
            }
        })
        .await;
        looked.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a file could not be looked at"))?;
    }
    Ok(Json(messages))
}

pub(super) async fn send(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<NewMessage>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let phone = Phone::parse(&path?.0)?;
    let Json(new) = body?;
    let to = Phone::parse(&new.to)?;
    let manner =
        Manner { reply_to: new.reply_to.clone(), referral: new.referral.clone(), unavailable: new.unavailable };
    let draft = new.draft()?;
    let id = if let Draft::Media(_) = &draft {
        // Encrypting a file takes its time.
        let world = Arc::clone(&app.world);
        tokio::task::spawn_blocking(move || world.send(&phone, &to, draft, manner))
            .await
            .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be sent"))??
    } else {
        app.world.send(&phone, &to, draft, manner)?
    };
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

/// The phone's owner listens to a voice note.
pub(super) async fn play(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path((phone, id)) = path?;
    match app.world.play(&Phone::parse(&phone)?, &id) {
        Some(true) => Ok(StatusCode::NO_CONTENT),
        Some(false) => Err(Problem::new(StatusCode::NOT_FOUND, "nobody has sent a voice note of this id")),
        None => Err(Problem::no_account()),
    }
}

/// The decrypted file of a message.
pub(super) async fn media(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((phone, id)) = path?;
    let messages = app.world.messages(&Phone::parse(&phone)?).ok_or_else(Problem::no_account)?;
    let file = messages.into_iter().rev().find(|m| m.id == id).and_then(|m| m.media().cloned());
    let file = file.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such message with a file"))?;
    let mimetype = HeaderValue::from_str(&file.mimetype).ok().filter(|mimetype| !mimetype.is_empty());
    let media = Arc::clone(&app.world.media);
    let plain = tokio::task::spawn_blocking(move || media.plain(&file)).await;
    let (plain, length) = plain
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be decrypted"))?
        .map_err(|trouble| Problem::new(StatusCode::BAD_GATEWAY, trouble.to_string()))?;
    let headers = [
        (header::CONTENT_TYPE, mimetype.unwrap_or(HeaderValue::from_static("application/octet-stream"))),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
        // Whatever it is, it is not a page of ours.
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((headers, Body::from_stream(read(tokio::fs::File::from_std(plain), length, || {}))).into_response())
}
