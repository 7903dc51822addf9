//! `GET /status`, and the body that tells what a session is.

use crate::session::Session;
use std::sync::Arc;

use axum::{Extension, Json, extract};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    http::{
        App,
        caller::Tenant,
        request_log::Noted,
        unknown::{Unknown, Warning},
    },
    model::session_state::{State, Status},
    util::clock::timestamp,
    whatsapp::account_limits::{NewChatQuota, ReachoutTimelock},
};

/// What `/status` and `/session` answer. The contract's fields first; the others are additions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusBody {
    status: Status,
    #[serde(flatten)]
    #[schema(value_type = Details)]
    details: Option<Details>,
    /// What `POST /session` did, and why it did nothing.
    #[serde(flatten)]
    #[schema(value_type = Done)]
    done: Option<Done>,
    /// What was in the call and was not understood.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<Warning>,
}

/// What `POST /session` did.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SessionAction)]
pub struct Done {
    #[schema(required = false)]
    pub action: Action,
    /// With `none`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_message: Option<String>,
}

/// What `POST /session` did, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SessionActionWord)]
pub enum Action {
    /// The session was created, or started again.
    Started,
    /// The session ran; a pairing code was asked for.
    CodeRequested,
    /// Nothing had to be done, or nothing could be.
    None,
}

/// What there is to say of a session that exists. A field that has nothing to say is left out.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SessionDetails)]
struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    qr_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    connected_at: Option<String>,
    #[schema(required = false)]
    state: State,
    #[schema(required = false, format = DateTime)]
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[schema(required = false)]
    can_send: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    qr_expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pairing_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pairing_code_expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    passkey_options: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passkey_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passkey_needs_confirmation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    retry_at: Option<String>,
    /// The way to WhatsApp, without the name and the password for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    appeal_token: Option<String>,
    #[schema(required = false)]
    messages_sent: u64,
    #[schema(required = false)]
    messages_received: u64,
    /// Messages that wait to be sent, or for their acknowledgement.
    #[schema(required = false)]
    pending: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    reachout_timelock: Option<TimelockBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_chat_quota: Option<QuotaBody>,
}

/// What WhatsApp said of what the account may do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReachoutTimelock)]
struct TimelockBody {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    until: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[schema(format = DateTime)]
    checked_at: String,
}

impl From<ReachoutTimelock> for TimelockBody {
    fn from(timelock: ReachoutTimelock) -> Self {
        Self {
            active: timelock.active,
            until: timelock.until.map(timestamp),
            kind: timelock.kind,
            checked_at: timestamp(timelock.checked_at),
        }
    }
}

/// To how many people who have not written first the account may write, as WhatsApp said.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewChatQuota)]
struct QuotaBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    cycle_start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    cycle_end: Option<String>,
    #[schema(format = DateTime)]
    checked_at: String,
}

impl From<NewChatQuota> for QuotaBody {
    fn from(quota: NewChatQuota) -> Self {
        Self {
            total: quota.total,
            used: quota.used,
            status: quota.status,
            cycle_start: quota.cycle_start.map(timestamp),
            cycle_end: quota.cycle_end.map(timestamp),
            checked_at: timestamp(quota.checked_at),
        }
    }
}

impl StatusBody {
    /// The body for a tenant without a session.
    pub fn not_found() -> Self {
        Self { status: Status::NotFound, details: None, done: None, warnings: Vec::new() }
    }

    /// The body for this session, as it is at this moment.
    pub fn of(session: &Session) -> Self {
        let snapshot = session.snapshot();
        let (messages_sent, messages_received) = session.counts();
        let ready = snapshot.state == State::Ready;
        let (reason, message) = snapshot.reason.map(|reason| (reason.code, reason.message)).unzip();
        let (qr_code, qr_expires_at) = snapshot.qr.map(|qr| (qr.text, timestamp(qr.expires_at))).unzip();
        let code = snapshot.pairing_code.map(|code| (code.text, timestamp(code.expires_at)));
        let (pairing_code, pairing_code_expires_at) = code.unzip();
        let passkey = snapshot.passkey.as_ref();
        Self {
            status: snapshot.state.status(),
            details: Some(Details {
                qr_code,
                connected_at: snapshot.connected_at.filter(|_| ready).map(timestamp),
                state: snapshot.state,
                since: timestamp(snapshot.since),
                reason,
                message,
                can_send: ready,
                phone: snapshot.phone,
                push_name: snapshot.push_name,
                qr_expires_at,
                pairing_code,
                pairing_code_expires_at,
                passkey_options: passkey.and_then(|passkey| verbatim(&passkey.options)),
                passkey_code: passkey.and_then(|passkey| passkey.code.clone()),
                passkey_needs_confirmation: passkey.map(|passkey| passkey.needs_confirmation),
                retry_at: snapshot.retry_at.map(timestamp),
                proxy: session.proxy().map(|proxy| proxy.to_string()),
                appeal_token: snapshot.appeal_token,
                messages_sent,
                messages_received,
                pending: session.outbox().pending(),
                reachout_timelock: session.limits().reachout_timelock().map(TimelockBody::from),
                new_chat_quota: session.limits().new_chat_quota().map(QuotaBody::from),
            }),
            done: None,
            warnings: Vec::new(),
        }
    }

    /// Says what `POST /session` did.
    pub fn after(self, done: Done) -> Self {
        Self { done: Some(done), ..self }
    }

    /// Says what was not understood, to the caller and to the log.
    pub fn warned(self, unknown: &Unknown) -> (Extension<Noted>, Json<Self>) {
        (Extension(Noted::default().unknown(unknown)), Json(Self { warnings: unknown.warnings(), ..self }))
    }
}

/// The server's JSON as it came; as a text where it is none.
fn verbatim(options: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(options.into()).or_else(|_| serde_json::value::to_raw_value(options)).ok()
}

/// `GET /status`: what the tenant's session is right now.
#[utoipa::path(
    get, path = "/status", tag = "Sessions",
    params(("Prefer" = Option<String>, Header, description = "`handling=strict` refuses what is not known.")),
    responses((status = 200, description = "The session as it is, or that there is none.", body = StatusBody))
)]
pub async fn get(
    extract::State(app): extract::State<Arc<App>>,
    Tenant(tenant): Tenant,
    unknown: Unknown,
) -> (Extension<Noted>, Json<StatusBody>) {
    let session = app.manager.get(&tenant);
    session.map_or_else(StatusBody::not_found, |session| StatusBody::of(&session)).warned(&unknown)
}
