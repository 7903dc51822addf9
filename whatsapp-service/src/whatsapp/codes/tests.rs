use super::*;
use crate::model::session_state::Status;

fn list(codes: &[i32]) -> String {
    codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ")
}

/// The table as Markdown. What it says of `POST /send` and of events follows from the state.
fn rendered() -> String {
    let mut lines = vec![
        "| what arrives | `state` | `reason` | dials again by itself | `POST /send` | event | counts for all |"
            .to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in TABLE {
        let arrives: Vec<_> = row
            .arrives
            .iter()
            .map(|arrives| match arrives {
                Arrives::Failures(codes) => format!("failure {}", list(codes)),
                Arrives::OtherFailures => "any other failure".into(),
                Arrives::StreamErrors(codes) => format!("stream error {}", list(codes)),
                Arrives::OtherStreamErrors => "any other stream error".into(),
                Arrives::Replaced => "conflict `replaced`".into(),
                Arrives::Removed => "conflict `device_removed`, any other conflict".into(),
            })
            .collect();
        let again = match row.again {
            RetryPolicy::Soon => "soon",
            RetryPolicy::SoonIfDead => "soon, if a ping stays unanswered for 10 s",
            RetryPolicy::Slowly => "slowly",
            RetryPolicy::ToConfirm => "once, after 5 s, to confirm it",
            RetryPolicy::OnceMore => "once, after 10 to 30 s; a second time within ten minutes, never",
            RetryPolicy::AtExpiry => "when the ban is over",
            RetryPolicy::Tomorrow => "after a day",
            RetryPolicy::Never => "never",
        };
        let word = |state: State| match state {
            State::Reconnecting => "`reconnecting`".to_owned(),
            state => format!("`{}`", state.as_str()),
        };
        let doubted = matches!(row.again, RetryPolicy::ToConfirm | RetryPolicy::OnceMore);
        let state = if doubted { format!("`reconnecting`, then {}", word(row.state)) } else { word(row.state) };
        let reason = match row.unconfirmed() {
            Some((reason, _)) => format!("`{reason}`, then `{}`", row.reason),
            None => format!("`{}`", row.reason),
        };
        let send = match row.state.status() {
            _ if doubted => "202, then 409",
            Status::Initializing => "202",
            _ => "409",
        };
        let fleet = if row.fleet { "yes" } else { "" };
        let arrives = arrives.join("; ");
        lines.push(format!("| {arrives} | {state} | {reason} | {again} | {send} | {state} | {fleet} |"));
    }
    lines.join("\n")
}

#[test]
fn the_documentation_shows_this_table() {
    let documented = include_str!("../../../../docs/sessions.md");
    assert!(documented.contains(&rendered()), "docs/sessions.md needs this table:\n{}", rendered());
}

#[test]
fn every_word_has_a_row_and_the_reason_is_in_the_documentation() {
    // Every reason from 400 to 599, and what lies beyond.
    let (manual, _) = include_str!("../../../../docs/sessions.md").split_once("\n## What WhatsApp says").unwrap();
    let codes = (400..600).chain([-1, 0, 1, 100, 399, 600, 999, i32::MAX]);
    let words = codes.flat_map(|code| [DisconnectCode::Failure(code), DisconnectCode::StreamError(code)]);
    for word in words.chain([DisconnectCode::Replaced, DisconnectCode::Removed]) {
        let row = row(word);
        assert!(row.arrives.iter().any(|arrives| arrives.covers(word)), "{word:?} has no row of its own kind");
        assert!(manual.contains(&format!("`{}`", row.reason)), "{} is not in docs/sessions.md", row.reason);
        assert!(manual.contains(&format!("`{}`", row.state.as_str())));
        if let Some((reason, _)) = row.unconfirmed() {
            assert!(manual.contains(&format!("`{reason}`")), "{reason} is not in docs/sessions.md");
        }
        let (reason, message) = row.reason(Some(word.code()));
        assert!(!reason.contains('N') && !message.contains("code N"), "{reason}: {message}");
    }
}

#[test]
fn a_reason_names_the_code_where_there_is_one() {
    let (reason, message) = row(DisconnectCode::Failure(428)).reason(Some(428));
    assert_eq!((reason.as_str(), message.as_str()), ("refused_428", "WhatsApp refused the login with code 428."));
    assert_eq!(row(DisconnectCode::Failure(402)).reason(None).0, "account_banned");
    assert_eq!(row(DisconnectCode::Failure(402)).reason(Some(104)).0, "account_banned_104");
    assert_eq!(row(DisconnectCode::StreamError(0)).reason(None).0, "stream_error");
}

#[test]
fn pauses_grow_and_use_their_whole_range() {
    // Who flaps waits longer and longer.
    let soon: Vec<_> = (1..12).map(|failures| RetryPolicy::Soon.pause(failures, 1.0).unwrap().as_secs()).collect();
    assert_eq!(soon, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
    assert_eq!(RetryPolicy::Soon.pause(9, 0.0), Some(Duration::ZERO));
    let slowly: Vec<_> = (1..9).map(|failures| RetryPolicy::Slowly.pause(failures, 1.0).unwrap().as_secs()).collect();
    assert_eq!(slowly, [120, 180, 300, 540, 1020, 1980, 3660, 3660]);
    assert_eq!(RetryPolicy::Slowly.pause(1, 0.0), Some(Duration::from_secs(60)));
    for failures in [1, 50] {
        assert_eq!(RetryPolicy::ToConfirm.pause(failures, 0.0), Some(Duration::from_secs(5)));
        assert_eq!(RetryPolicy::ToConfirm.pause(failures, 1.0), Some(Duration::from_secs(6)));
    }
    assert_eq!(RetryPolicy::OnceMore.pause(1, 0.0), Some(Duration::from_secs(10)));
    assert_eq!(RetryPolicy::OnceMore.pause(50, 1.0), Some(Duration::from_secs(30)));
    assert_eq!(RetryPolicy::Soon.pause(u32::MAX, 2.0), Some(Duration::from_secs(60)));
    assert!(
        [RetryPolicy::AtExpiry, RetryPolicy::Tomorrow, RetryPolicy::Never]
            .iter()
            .all(|again| again.pause(1, 1.0).is_none())
    );
}
