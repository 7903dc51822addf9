//! What the service answers about a message.

use std::time::Duration;

use serde_json::Value;

/// How far a message got, as the service tells it. Only a later one may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Accepted.
    Queued,
    /// It may have left.
    Unknown,
    /// WhatsApp has it.
    Sent,
    /// The recipient's phone has it.
    Delivered,
    /// The recipient has seen it.
    Read,
    /// The recipient has listened to it.
    Played,
}

impl Fate {
    /// Reads a `status`. `None` for `failed`, and for what is none.
    pub fn parse(status: &str) -> Option<Self> {
        Some(match status {
            "queued" => Self::Queued,
            "unknown" => Self::Unknown,
            "sent" => Self::Sent,
            "delivered" => Self::Delivered,
            "read" => Self::Read,
            "played" => Self::Played,
            _ => return None,
        })
    }
}

/// An answer about one message.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Accepted, under this id, and so far it has come.
    Accepted { id: String, fate: Fate },
    /// Not settled: the same again, after this time if the service named one.
    Again(Option<Duration>),
    /// As `Again`, for a time.
    NotReady,
    /// Accepted, and failed for good.
    Failed,
    /// Not accepted, or an answer that is none.
    Refused,
}

/// What an accepted message's body says; `None` if it is none.
pub fn accepted(body: &Value) -> Option<Answer> {
    let (id, status) = (body["id"].as_str()?, body["status"].as_str()?);
    if status == "failed" {
        return Some(Answer::Failed);
    }
    Some(Answer::Accepted { id: id.to_owned(), fate: Fate::parse(status)? })
}

/// What the answer to `POST /send` means.
pub fn single(status: u16, body: &Value, after: Option<Duration>) -> Answer {
    match (status, body["code"].as_str()) {
        (200..300, _) => match accepted(body) {
            // 200 says that the server has it.
            Some(Answer::Accepted { fate, .. }) if status == 200 && fate < Fate::Sent => Answer::Refused,
            Some(answer) => answer,
            None => Answer::Refused,
        },
        (429, _) => Answer::Again(after),
        (409, Some("session_not_ready")) => Answer::NotReady,
        (502, Some("message_rejected" | "recipient_unreachable")) => Answer::Failed,
        (500.., _) => Answer::Again(after),
        _ => Answer::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_an_answer_that_settles_it_ends_the_repeating() {
        let code = |code: &str| json!({"error": "…", "code": code});
        let sent = json!({"id": "A", "status": "sent"});
        assert_eq!(single(200, &sent, None), Answer::Accepted { id: "A".into(), fate: Fate::Sent });
        let queued = json!({"id": "A", "status": "queued"});
        assert_eq!(single(202, &queued, None), Answer::Accepted { id: "A".into(), fate: Fate::Queued });
        assert_eq!(single(200, &queued, None), Answer::Refused, "200 means that the server has it");
        assert_eq!(single(200, &json!({}), None), Answer::Refused);
        assert_eq!(
            single(429, &code("queue_full"), Some(Duration::from_secs(3))),
            Answer::Again(Some(Duration::from_secs(3)))
        );
        assert_eq!(single(503, &code("storage_failed"), None), Answer::Again(None));
        assert_eq!(single(409, &code("session_not_ready"), None), Answer::NotReady);
        assert_eq!(single(409, &code("idempotency_conflict"), None), Answer::Refused);
        assert_eq!(single(422, &code("recipient_not_on_whatsapp"), None), Answer::Refused);
        assert_eq!(single(502, &code("message_rejected"), None), Answer::Failed);
    }
}
