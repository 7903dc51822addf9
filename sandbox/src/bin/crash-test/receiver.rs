//! The webhook's receiver, which misbehaves now and then.

use std::sync::{Arc, atomic::Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Router, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::RngExt as _;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;

use crate::run::Run;

/// How often each tenant's receiver misbehaves in a run, about. More would make the waiting between attempts the whole
/// of the run.
const MISDEEDS: f64 = 8.0;

/// Events of one message, about: sent, delivered, read.
const EVENTS: f64 = 2.5;

/// How far the two clocks may be apart; they are the same.
const CLOCK_SECONDS: u64 = 60;

/// What the receiver does with an event.
enum Mood {
    Take,
    Slow(Duration),
    Fail,
    Close,
}

/// Where the service delivers to.
pub struct Receiver {
    url: String,
    key: [u8; 32],
    run: Arc<Run>,
}

impl Receiver {
    /// Receives on a free port, in the background, until the process ends.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn start(run: Arc<Run>) -> anyhow::Result<Arc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/events", listener.local_addr()?);
        let receiver = Arc::new(Self { url, key: rand::random(), run });
        let router = Router::new().route("/events", post(receive)).with_state(Arc::clone(&receiver));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(receiver)
    }

    /// The value of `WEBHOOK_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The value of `WEBHOOK_SECRET`.
    pub fn secret(&self) -> String {
        format!("whsec_{}", BASE64.encode(self.key))
    }

    /// The event of a delivery, or what is wrong with it.
    fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<Value, String> {
        let header = |name: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).ok_or_else(|| format!("there is no {name}"))
        };
        let (id, time, signature) = (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
        let signature = signature.strip_prefix("v1,").and_then(|text| BASE64.decode(text).ok());
        let signature = signature.ok_or("the signature is no v1,<base64>")?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|error| error.to_string())?;
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(body);
        mac.verify_slice(&signature).map_err(|_| "the signature is wrong")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let apart = time.parse::<u64>().map_err(|_| "the time is no number")?.abs_diff(now);
        if apart > CLOCK_SECONDS {
            return Err(format!("the time is {apart} s off"));
        }
        let envelope: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if envelope["id"] != id {
            return Err(format!("webhook-id is {id}, the event's id is {}", envelope["id"]));
        }
        Ok(envelope)
    }

    /// The same for each seed and attempt. When the load is over there is no more misbehaving.
    fn mood(&self, tenant: usize, sequence: u64, attempt: u32) -> Mood {
        let run = &self.run;
        let events = EVENTS * run.plan.messages.len() as f64 / run.plan.tenants.len() as f64;
        let probability = (MISDEEDS / events).clamp(0.001, 0.05);
        let mut rng = run.plan.rng(2 + ((tenant as u64) << 48) + (sequence << 8) + u64::from(attempt));
        if run.loaded.load(Relaxed) || !rng.random_bool(probability) {
            return Mood::Take;
        }
        match rng.random_range(0..10) {
            0..4 => Mood::Fail,
            4..7 => Mood::Close,
            _ => Mood::Slow(Duration::from_millis(rng.random_range(300..2_000))),
        }
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let run = &receiver.run;
    let envelope = match receiver.check(&headers, &body) {
        Ok(envelope) => envelope,
        Err(wrong) => {
            run.violations.add("webhook_signature", wrong);
            return StatusCode::BAD_REQUEST;
        }
    };
    let tenant = run.plan.tenants.iter().position(|tenant| envelope["tenantId"] == tenant.name.as_str());
    let (Some(tenant), Some(sequence @ 1..)) = (tenant, envelope["sequence"].as_u64()) else {
        run.violations.add("webhook_order", format!("an event of nobody, or without a number: {envelope}"));
        return StatusCode::BAD_REQUEST;
    };
    let (attempt, wrong) = run.inbox.arrive(tenant, sequence, &envelope, run.killed());
    if let Some(wrong) = wrong {
        run.violations.add("webhook_order", format!("{}: {wrong}", run.plan.tenants[tenant].name));
    }
    match receiver.mood(tenant, sequence, attempt) {
        Mood::Take => {}
        Mood::Slow(time) => tokio::time::sleep(time).await,
        Mood::Fail => return StatusCode::INTERNAL_SERVER_ERROR,
        // Ends the task of this connection, without an answer and without a word on standard error.
        Mood::Close => std::panic::resume_unwind(Box::new("the receiver closes the connection")),
    }
    run.inbox.take(tenant, sequence);
    StatusCode::OK
}
