//! What is counted as it happens. What can be looked up at any time (states, queues, the process) is looked up by
//! `GET /metrics` itself.
//!
//! Each label has few values, and they are fixed here: no tenant, no number, no text of anybody's gets into one.

use std::{sync::OnceLock, time::Duration};

use ::metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram, set_global_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::model::{
    error_code::ErrorCode,
    message::{Failure, Message, MessageStatus},
    session_state::State,
};

/// The limits of the classes that times are counted in, in seconds.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// The limits of the classes that jobs per commit are counted in.
const JOBS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// The codes that WhatsApp is known to refuse messages with; see `docs/api.md`. Every other one is `other`.
const NACKS: [&str; 9] = ["400", "404", "421", "429", "463", "475", "479", "500", "503"];
/// Stands for every value that a label has no word for.
pub const OTHER: &str = "other";

const DIALS: &str = "whatsapp_dials_total";
const ABANDONED: &str = "whatsapp_handshakes_abandoned_total";
const STATE_CHANGES: &str = "whatsapp_session_state_changes_total";
const ACCEPTED: &str = "whatsapp_messages_accepted_total";
const MESSAGES: &str = "whatsapp_messages_total";
const ATTEMPTS: &str = "whatsapp_send_attempts_total";
const ATTEMPT_SECONDS: &str = "whatsapp_send_attempt_seconds";
const REFUSALS: &str = "whatsapp_message_refusals_total";
const RECEIVED: &str = "whatsapp_messages_received_total";
const DELIVERIES: &str = "whatsapp_webhook_deliveries_total";
const DELIVERY_SECONDS: &str = "whatsapp_webhook_delivery_seconds";
const GIVEN_UP: &str = "whatsapp_webhook_events_given_up_total";
const COMMITS: &str = "whatsapp_store_commits_total";
const COMMIT_SECONDS: &str = "whatsapp_store_commit_seconds";
const COMMIT_JOBS: &str = "whatsapp_store_commit_jobs";
const REQUESTS: &str = "whatsapp_http_requests_total";
const REQUEST_SECONDS: &str = "whatsapp_http_request_seconds";
const PROBLEMS: &str = "whatsapp_http_problems_total";

static GATHERED: OnceLock<PrometheusHandle> = OnceLock::new();

/// Counts from now on. What happened before is not counted. More than one call changes nothing.
pub fn start() {
    GATHERED.get_or_init(|| {
        let buckets = "the buckets are not empty";
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .expect(buckets)
            .set_buckets_for_metric(Matcher::Full(COMMIT_JOBS.into()), &JOBS)
            .expect(buckets)
            .build_recorder();
        let gathered = recorder.handle();
        // Only a program that embeds this one can have set another, and then that one counts.
        if set_global_recorder(recorder).is_ok() {
            describe();
        }
        gathered
    });
}

/// What was counted, in Prometheus' text format.
pub fn render() -> String {
    GATHERED.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Sorts times that were measured into their classes. To be called every few seconds, as they need memory until then.
pub fn tidy_up() {
    if let Some(gathered) = GATHERED.get() {
        gathered.run_upkeep();
    }
}

/// Says what each one means, and lets those appear whose words are known before anything has happened: a rate of
/// something that was not there before can't be computed.
fn describe() {
    describe_counter!(DIALS, "Attempts to open a connection to WhatsApp, by what came of them.");
    for outcome in [Dialled::Opened, Dialled::Failed, Dialled::ProxyFailed] {
        counter!(DIALS, "outcome" => outcome.as_str()).absolute(0);
    }
    describe_counter!(ABANDONED, "Connections that ended before WhatsApp had proved who it is.");
    counter!(ABANDONED).absolute(0);
    describe_counter!(STATE_CHANGES, "How often sessions entered each state.");
    for state in State::ALL {
        counter!(STATE_CHANGES, "state" => state.as_str()).absolute(0);
    }
    describe_counter!(ACCEPTED, "Messages that were accepted.");
    counter!(ACCEPTED).absolute(0);
    describe_counter!(
        MESSAGES,
        "How often messages came to each status; with the code, if there is one, of the failure."
    );
    for status in
        MessageStatus::ALL.into_iter().filter(|status| !matches!(status, MessageStatus::Queued | MessageStatus::Failed))
    {
        counter!(MESSAGES, "status" => status.as_str(), "code" => "").absolute(0);
    }
    for code in Failure::CODES {
        // One that could not be decrypted was sent all the same.
        let was_sent = code == ErrorCode::RecipientCouldNotDecrypt;
        let status = if was_sent { MessageStatus::Sent } else { MessageStatus::Failed };
        counter!(MESSAGES, "status" => status.as_str(), "code" => code.code().unwrap_or_default()).absolute(0);
    }
    describe_counter!(ATTEMPTS, "Attempts to send a message, by what came of them.");
    for outcome in Attempted::ALL {
        counter!(ATTEMPTS, "outcome" => outcome.as_str()).absolute(0);
    }
    describe_histogram!(ATTEMPT_SECONDS, Unit::Seconds, "How long attempts took that WhatsApp acknowledged.");
    let _ = histogram!(ATTEMPT_SECONDS);
    describe_counter!(REFUSALS, "Messages that WhatsApp refused, by its code.");
    for code in NACKS.into_iter().chain([OTHER]) {
        counter!(REFUSALS, "code" => code).absolute(0);
    }
    describe_counter!(RECEIVED, "Messages from others that arrived and were decrypted.");
    counter!(RECEIVED).absolute(0);
    describe_counter!(DELIVERIES, "Attempts to post an event to a webhook, by what came of them.");
    for outcome in [Delivered::Taken, Delivered::Refused, Delivered::Stopped, Delivered::Unreachable] {
        counter!(DELIVERIES, "outcome" => outcome.as_str()).absolute(0);
    }
    describe_histogram!(DELIVERY_SECONDS, Unit::Seconds, "How long attempts to post an event took.");
    let _ = histogram!(DELIVERY_SECONDS);
    describe_counter!(GIVEN_UP, "Events that were given up because a webhook did not take them in time.");
    counter!(GIVEN_UP).absolute(0);
    describe_counter!(COMMITS, "Transactions of the database, by whether they reached the disk.");
    for outcome in [OK, FAILED] {
        counter!(COMMITS, "outcome" => outcome).absolute(0);
    }
    describe_histogram!(
        COMMIT_SECONDS,
        Unit::Seconds,
        "How long transactions took, from their first write to the disk."
    );
    let _ = histogram!(COMMIT_SECONDS);
    describe_histogram!(COMMIT_JOBS, "How many writes shared a transaction.");
    describe_counter!(REQUESTS, "Answered HTTP requests, by method, route and status.");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "How long HTTP requests took until the head of their answer.");
    describe_counter!(PROBLEMS, "Error answers that have a code, by the code.");
}

/// What came of an attempt to connect.
#[derive(Clone, Copy)]
pub enum Dialled {
    /// The connection is open; WhatsApp has not spoken yet.
    Opened,
    /// There is none.
    Failed,
    /// There is none, because of the tenant's own proxy.
    ProxyFailed,
}

impl Dialled {
    fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Failed => "failed",
            Self::ProxyFailed => "proxy_failed",
        }
    }
}

/// An attempt to open a connection to WhatsApp has ended.
pub fn dialled(outcome: Dialled) {
    counter!(DIALS, "outcome" => outcome.as_str()).increment(1);
}

/// A connection ended before WhatsApp had proved who it is.
pub fn handshake_abandoned() {
    counter!(ABANDONED).increment(1);
}

/// A session is in another state.
pub fn entered(state: State) {
    counter!(STATE_CHANGES, "state" => state.as_str()).increment(1);
}

/// A message was accepted.
pub fn accepted() {
    counter!(ACCEPTED).increment(1);
}

/// A message came to another status, and that is on the disk.
pub fn message(message: &Message) {
    let known = |failure: &Failure| Failure::CODES.into_iter().find(|code| failure.is(*code));
    let code = message.failure.as_ref().map_or("", |failure| known(failure).and_then(ErrorCode::code).unwrap_or(OTHER));
    counter!(MESSAGES, "status" => message.status.as_str(), "code" => code).increment(1);
}

/// What came of an attempt to send.
#[derive(Clone, Copy)]
pub enum Attempted {
    /// WhatsApp acknowledged it, or a receipt proves that it arrived.
    Acknowledged,
    /// WhatsApp refused it.
    Refused,
    /// Nothing left.
    NotSent,
    /// It left, and WhatsApp has not said a word.
    Unknown,
    /// It can't be sent: the recipient is not on WhatsApp or has no device, or the account is another.
    Impossible,
}

impl Attempted {
    const ALL: [Self; 5] = [Self::Acknowledged, Self::Refused, Self::NotSent, Self::Unknown, Self::Impossible];

    fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Refused => "refused",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
            Self::Impossible => "impossible",
        }
    }
}

/// An attempt to send has ended.
pub fn attempted(outcome: Attempted, took: Duration) {
    counter!(ATTEMPTS, "outcome" => outcome.as_str()).increment(1);
    if matches!(outcome, Attempted::Acknowledged) {
        histogram!(ATTEMPT_SECONDS).record(took);
    }
}

/// WhatsApp refused a message with this code.
pub fn refused(code: &str) {
    counter!(REFUSALS, "code" => known(code, &NACKS)).increment(1);
}

/// Messages from others were decrypted.
pub fn received(count: u64) {
    counter!(RECEIVED).increment(count);
}

/// What came of an attempt to post an event.
#[derive(Clone, Copy)]
pub enum Delivered {
    /// The receiver took it.
    Taken,
    /// The receiver answered something else than 2xx.
    Refused,
    /// The receiver answered 410.
    Stopped,
    /// There was no answer, or the address is not allowed.
    Unreachable,
}

impl Delivered {
    fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
            Self::Unreachable => "unreachable",
        }
    }
}

/// An attempt to post an event to a webhook has ended.
pub fn delivered(outcome: Delivered, took: Duration) {
    counter!(DELIVERIES, "outcome" => outcome.as_str()).increment(1);
    histogram!(DELIVERY_SECONDS).record(took);
}

/// Events were given up.
pub fn given_up(events: usize) {
    counter!(GIVEN_UP).increment(events as u64);
}

const OK: &str = "ok";
const FAILED: &str = "failed";

/// Counts transactions. The one thread that writes keeps it, so that nothing has to be looked up for each of them.
pub struct Commits {
    done: Counter,
    failed: Counter,
    seconds: Histogram,
    jobs: Histogram,
}

impl Commits {
    /// To be made after [`start`].
    pub fn start() -> Self {
        Self {
            done: counter!(COMMITS, "outcome" => OK),
            failed: counter!(COMMITS, "outcome" => FAILED),
            seconds: histogram!(COMMIT_SECONDS),
            jobs: histogram!(COMMIT_JOBS),
        }
    }

    /// A transaction has ended that held so many jobs.
    pub fn ended(&self, done: bool, jobs: usize, took: Duration) {
        if done { &self.done } else { &self.failed }.increment(1);
        self.seconds.record(took);
        self.jobs.record(jobs as f64);
    }
}

/// A method's name. A caller may name it as it likes: of others only that is told.
pub fn method(method: &axum::http::Method) -> &'static str {
    known(method.as_str(), &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
}

/// A request was answered. `route` is the path as the router knows it, if it does.
pub fn answered(method: &'static str, route: Option<&str>, status: u16, took: Duration) {
    let route = route.unwrap_or(OTHER).to_owned();
    counter!(REQUESTS, "method" => method, "route" => route.clone(), "status" => status.to_string()).increment(1);
    histogram!(REQUEST_SECONDS, "method" => method, "route" => route).record(took);
}

/// An error was answered, or is part of an answer.
pub fn problem(code: &'static str) {
    counter!(PROBLEMS, "code" => code).increment(1);
}

/// The word itself if it is `among` those that are known: labels must not grow without an end.
pub fn known(word: &str, among: &[&'static str]) -> &'static str {
    among.iter().find(|known| **known == word).copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_only_words_that_are_known() {
        assert_eq!(known("463", &NACKS), "463");
        assert_eq!(known("5511999999999", &NACKS), OTHER);
        assert_eq!(known("", &NACKS), OTHER);
    }
}
