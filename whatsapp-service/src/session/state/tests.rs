use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn snapshot_after(signals: impl IntoIterator<Item = Fact>) -> Snapshot {
    let mut snapshot = Snapshot::new(at(0));
    for (second, signal) in (1..).zip(signals) {
        snapshot.apply(signal, at(second));
    }
    snapshot
}

fn qr(code: &str) -> Fact {
    Fact::QrCode { code: code.into(), valid_for: TimeDelta::seconds(20) }
}

fn code(code: &str) -> Fact {
    Fact::PairingCode { code: code.into(), valid_for: TimeDelta::seconds(180) }
}

fn online() -> Fact {
    Fact::Online { phone: Some("5511999999999".into()), push_name: "Ana".into() }
}

fn said(word: DisconnectCode) -> Fact {
    Fact::Said(word.into())
}

fn banned(ban: Option<i32>, lasts: Option<TimeDelta>) -> Fact {
    Fact::Said(Said { ban, lasts, ..DisconnectCode::Failure(402).into() })
}

fn reason_of(snapshot: &Snapshot) -> Option<&str> {
    snapshot.reason.as_ref().map(|reason| reason.code.as_str())
}

#[test]
fn a_new_qr_code_takes_the_place_of_the_old_one() {
    let snapshot = snapshot_after([qr("first"), qr("second")]);
    assert_eq!(snapshot.state, State::PairingQr);
    assert_eq!(snapshot.since, at(1), "the state did not change with the second code");
    assert_eq!(snapshot.qr, Some(Expiring { text: "second".into(), expires_at: at(22) }));
}

#[test]
fn a_scanned_code_is_gone_at_once() {
    let snapshot = snapshot_after([qr("code"), Fact::Paired { phone: "5511999999999".into() }]);
    assert_eq!((snapshot.state, snapshot.qr), (State::Connecting, None));
    assert_eq!(snapshot.phone.as_deref(), Some("5511999999999"));
}

#[test]
fn qr_codes_that_ran_out_say_so_and_can_be_asked_for_again() {
    let snapshot = snapshot_after([qr("code"), Fact::QrExhausted { disconnected: true }]);
    assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Failed, Some("qr_expired")));
    assert!(snapshot.qr.is_none() && snapshot.stops_client() && snapshot.can_be_reopened(at(9)));
}

#[test]
fn a_pairing_code_outlives_the_qr_codes_beside_it() {
    let snapshot = snapshot_after([qr("a"), code("ABCD1234"), qr("b"), Fact::QrExhausted { disconnected: false }]);
    assert_eq!(snapshot.state, State::PairingCode);
    assert_eq!(snapshot.pairing_code.unwrap().text, "ABCD1234");
    assert!(snapshot.qr.is_none());
}

#[test]
fn a_pairing_code_is_not_renewed_by_itself() {
    let snapshot = snapshot_after([qr("a"), code("ABCD1234"), Fact::PairingCodeExpired]);
    assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Failed, Some("pairing_code_expired")));
    assert!(snapshot.pairing_code.is_none() && snapshot.qr.is_none());
}

#[test]
fn ready_is_entered_once_and_kept() {
    let mut snapshot = snapshot_after([online()]);
    assert_eq!((snapshot.state, snapshot.connected_at), (State::Ready, Some(at(1))));
    snapshot.apply(online(), at(9));
    assert_eq!(snapshot.connected_at, Some(at(1)), "the second report of one connection changes nothing");
}

#[test]
fn a_lost_connection_is_not_ready_and_comes_back() {
    let mut snapshot = snapshot_after([online(), Fact::DialFailed("late news".into())]);
    assert_eq!((snapshot.state, &snapshot.reason), (State::Ready, &None));
    snapshot.apply(Fact::Offline, at(2));
    assert_eq!(snapshot.state, State::Reconnecting);
    assert_eq!(snapshot.state.status(), Status::Initializing);
    snapshot.apply(Fact::DialFailed("refused".into()), at(3));
    assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Reconnecting, Some("connection_failed")));
    snapshot.apply(online(), at(4));
    assert_eq!((snapshot.state, snapshot.connected_at, snapshot.reason), (State::Ready, Some(at(4)), None));
}

#[test]
fn a_code_dies_with_its_connection() {
    let snapshot = snapshot_after([qr("code"), Fact::Offline]);
    assert_eq!((snapshot.state, snapshot.qr), (State::Connecting, None));
}

#[test]
fn a_passkey_is_asked_for_compared_and_forgotten() {
    let mut snapshot = snapshot_after([qr("a"), Fact::PasskeyRequested { options: r#"{"challenge":"x"}"#.into() }]);
    assert_eq!(snapshot.state, State::PasskeyRequired);
    assert!(snapshot.qr.is_none());
    snapshot.apply(Fact::PasskeyCode { code: "ABCD-1234".into(), needs_confirmation: true }, at(3));
    let passkey = snapshot.passkey.clone().unwrap();
    assert_eq!(passkey.options, r#"{"challenge":"x"}"#);
    assert_eq!((passkey.code.as_deref(), passkey.needs_confirmation), (Some("ABCD-1234"), true));
    snapshot.apply(Fact::Paired { phone: "5511999999999".into() }, at(4));
    assert!(snapshot.passkey.is_none());
}

#[test]
fn a_failed_passkey_says_why() {
    let asked = Fact::PasskeyRequested { options: "{}".into() };
    let snapshot = snapshot_after([asked, Fact::PasskeyFailed("cancelled".into())]);
    assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Failed, Some("passkey_failed")));
}

#[test]
fn a_ban_waits_out_its_time() {
    let lasts = Some(TimeDelta::seconds(60));
    let snapshot = snapshot_after([online(), banned(Some(101), lasts)]);
    assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Banned, Some("account_banned_101")));
    assert_eq!(snapshot.retry_at, Some(at(62)));
    assert!(snapshot.is_paired() && !snapshot.can_be_reopened(at(9)));
}

#[test]
fn no_ban_is_waited_out_in_a_hurry_or_beyond_all_dates() {
    for (lasts, waits) in [(0, 60), (-5, 60), (61, 61), (i64::MAX / 1000, 3650 * 24 * 3600)] {
        let lasts = Some(TimeDelta::seconds(lasts));
        let snapshot = snapshot_after([online(), banned(None, lasts)]);
        assert_eq!(snapshot.retry_at, Some(at(2 + waits)));
    }
}

#[test]
fn a_ban_that_nobody_timed_lasts_a_day() {
    let snapshot = snapshot_after([online(), banned(None, None)]);
    assert_eq!((reason_of(&snapshot), snapshot.retry_at), (Some("account_banned"), Some(at(2 + 24 * 3600))));
}

#[test]
fn what_a_later_process_must_know_is_the_same_for_it() {
    let locked = Said { appeal_token: Some("token".into()), ..DisconnectCode::Failure(403).into() };
    let twice = Fact::WasReplaced(at(0));
    for signals in [
        vec![banned(Some(101), Some(TimeDelta::hours(1)))],
        vec![Fact::Said(locked)],
        vec![twice, said(DisconnectCode::Replaced)],
    ] {
        let before = snapshot_after(std::iter::once(online()).chain(signals));
        let hold = before.hold().unwrap();
        assert_eq!(hold.remaining(at(2)).is_some(), before.retry_at.is_some());
        let after = snapshot_after([Fact::Held(hold)]);
        assert_eq!((after.state, after.reason, after.retry_at), (before.state, before.reason, before.retry_at));
        assert_eq!(after.appeal_token, before.appeal_token);
    }
    assert_eq!(snapshot_after([online()]).hold(), None);
}

#[test]
fn a_clock_that_was_wrong_does_not_lengthen_a_ban() {
    // The clock was a day ahead when the ban was written down, or is a day behind when it is read.
    let hold = snapshot_after([online(), banned(Some(101), Some(TimeDelta::hours(1)))]).hold().unwrap();
    let seconds = |now| hold.remaining(at(now)).map(|wait| wait.as_secs());
    let day = 24 * 3600;
    assert_eq!((seconds(2), seconds(1802), seconds(3602)), (Some(3600), Some(1800), Some(0)));
    assert_eq!((seconds(2 - 3600), seconds(2 - day)), (Some(3600), Some(3600)), "never longer than WhatsApp said");
    assert_eq!((seconds(2 + 3600), seconds(2 + day)), (Some(0), Some(0)));
    assert!(hold.is_in_force(at(2 - day)) && !hold.is_in_force(at(2 + day)));
}

#[test]
fn one_that_is_replaced_dials_once_more_and_believes_the_second_time() {
    for word in [DisconnectCode::Replaced, DisconnectCode::StreamError(409)] {
        let mut first = snapshot_after([online(), said(word), Fact::Ended]);
        assert_eq!((first.state, first.again), (State::Reconnecting, RetryPolicy::OnceMore));
        assert_eq!(reason_of(&first), Some("replaced_unconfirmed"));
        assert!(first.is_paired() && first.hold().is_none() && !first.stops_client());
        first.apply(online(), at(30));
        let replaced = |mut snapshot: Snapshot, second| {
            snapshot.apply(said(word), at(second));
            (snapshot.state, snapshot.again)
        };
        let (believed, doubted) = ((State::Replaced, RetryPolicy::Never), (State::Reconnecting, RetryPolicy::OnceMore));
        assert_eq!(replaced(first.clone(), 31), believed);
        assert_eq!(replaced(first.clone(), 600), believed, "the connection between the two does not matter");
        assert_eq!(replaced(first.clone(), 603), doubted, "that was long ago");
        // The next process knows when it was; the clock may have been set back meanwhile.
        let next = snapshot_after([Fact::WasReplaced(first.replaced_at.unwrap())]);
        assert_eq!(replaced(next.clone(), 500), believed);
        assert_eq!(replaced(next.clone(), -500), believed);
        assert_eq!(replaced(next, 3600), (State::Connecting, RetryPolicy::OnceMore));
        first.apply(said(word), at(99));
        assert_eq!(reason_of(&first), Some("replaced"));
        assert!(first.hold().is_some() && first.can_be_reopened(at(100)));
    }
}

#[test]
fn one_word_of_unlinking_is_not_yet_a_logout() {
    for word in [
        DisconnectCode::Failure(401),
        DisconnectCode::Failure(516),
        DisconnectCode::StreamError(401),
        DisconnectCode::StreamError(516),
        DisconnectCode::Removed,
    ] {
        let mut snapshot = snapshot_after([online(), Fact::Offline, said(word), Fact::Ended]);
        assert_eq!((snapshot.state, snapshot.again), (State::Reconnecting, RetryPolicy::ToConfirm));
        assert_eq!(reason_of(&snapshot), Some("logged_out_unconfirmed"));
        assert!(snapshot.is_paired() && snapshot.seems_unlinked());
        let mut confirmed = snapshot.clone();
        confirmed.apply(said(word), at(9));
        assert_eq!((confirmed.state, reason_of(&confirmed)), (State::LoggedOut, Some("logged_out")));
        assert_eq!(confirmed.again, RetryPolicy::Never);
        snapshot.apply(online(), at(9));
        snapshot.apply(Fact::Offline, at(10));
        snapshot.apply(said(word), at(11));
        assert_eq!(snapshot.state, State::Reconnecting, "a login in between starts the count anew");
    }
}

#[test]
fn qr_codes_are_not_shown_for_ever() {
    let mut snapshot = snapshot_after([qr("a"), Fact::Offline, qr("b")]);
    let seconds = Duration::from_secs;
    assert!(!snapshot.pairing_is_overdue(seconds(180)) && snapshot.pairing_is_overdue(seconds(181)));
    snapshot.apply(code("ABCD1234"), at(100));
    assert!(!snapshot.pairing_is_overdue(seconds(181)), "a pairing code has its own time");
    snapshot.apply(online(), at(101));
    assert!(!snapshot.pairing_is_overdue(seconds(999)));
}

#[test]
fn a_passkey_does_not_outlive_its_connection() {
    let asked = Fact::PasskeyRequested { options: "{}".into() };
    let mut snapshot = snapshot_after([qr("a"), asked, qr("b")]);
    assert_eq!((snapshot.state, &snapshot.qr), (State::PasskeyRequired, &None));
    snapshot.apply(Fact::QrExhausted { disconnected: true }, at(4));
    assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Failed, Some("qr_expired")));
}

#[test]
fn the_states_that_the_server_decides() {
    for (signal, state, again, reopens) in [
        (said(DisconnectCode::Failure(402)), State::Banned, RetryPolicy::AtExpiry, false),
        (said(DisconnectCode::Failure(403)), State::Locked, RetryPolicy::Tomorrow, false),
        (said(DisconnectCode::Failure(405)), State::Outdated, RetryPolicy::Slowly, false),
        (said(DisconnectCode::Failure(406)), State::Banned, RetryPolicy::Never, false),
        (said(DisconnectCode::Failure(409)), State::Failed, RetryPolicy::Never, true),
        (said(DisconnectCode::Failure(428)), State::Failed, RetryPolicy::Slowly, false),
        (said(DisconnectCode::Failure(429)), State::Failed, RetryPolicy::Slowly, false),
        (Fact::StorageFailed("disk full".into()), State::Failed, RetryPolicy::Soon, true),
    ] {
        let mut snapshot = snapshot_after([online(), signal]);
        snapshot.apply(Fact::Ended, at(3));
        assert_eq!(snapshot.state, state, "the end that follows changes nothing");
        assert_eq!(snapshot.state.status(), Status::Failed);
        assert_eq!(snapshot.again, again, "{state:?}");
        assert_eq!(snapshot.can_be_reopened(at(9)), reopens, "{state:?}");
        assert!(snapshot.reason.is_some() && snapshot.stops_client());
    }
}

#[test]
fn no_word_leaves_a_session_dead_without_saying_so() {
    // It dials again by itself, or says that it does not and what a person can do.
    let words = (400..600).flat_map(|code| [DisconnectCode::Failure(code), DisconnectCode::StreamError(code)]);
    for word in words.chain([DisconnectCode::Replaced, DisconnectCode::Removed]) {
        for first in [Fact::Linked { phone: None }, online()] {
            let was_ready = matches!(first, Fact::Online { .. });
            let mut snapshot = snapshot_after([first, said(word), Fact::Ended]);
            let reason = snapshot.reason.clone().expect("a reason");
            assert!(!reason.code.is_empty() && !reason.message.is_empty());
            assert!(snapshot.is_paired(), "{word:?} destroys nothing");
            if snapshot.is_under_way() {
                assert_eq!(snapshot.state == State::Reconnecting, was_ready);
                assert!(snapshot.again.pause(1, 0.5).is_some(), "{word:?} is followed by a dial");
            } else {
                assert_eq!(snapshot.state.status(), Status::Failed);
                let by_itself = snapshot.again.pause(1, 0.5).is_some() || snapshot.retry_at.is_some();
                let banned = snapshot.state == State::Banned;
                assert!(by_itself || snapshot.can_be_reopened(at(9)) || banned, "{word:?} has a way out");
            }
            snapshot.apply(online(), at(9));
            assert_eq!((snapshot.state, snapshot.reason), (State::Ready, None));
        }
    }
}

#[test]
fn trouble_of_the_servers_is_no_failure_of_the_session() {
    let snapshot = snapshot_after([online(), said(DisconnectCode::Failure(503))]);
    assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Reconnecting, Some("server_error_503")));
    let fresh = snapshot_after([Fact::Linked { phone: None }, said(DisconnectCode::StreamError(515))]);
    assert_eq!((fresh.state, reason_of(&fresh)), (State::Connecting, Some("stream_error_515")));
}

#[test]
fn an_end_without_a_reason_is_retried() {
    let mut snapshot = snapshot_after([online(), Fact::Ended]);
    assert_eq!((snapshot.state, snapshot.again), (State::Reconnecting, RetryPolicy::Soon));
    assert_eq!(reason_of(&snapshot), Some("connection_lost"));
    assert_eq!(reason_of(&snapshot_after([online(), Fact::Panicked, Fact::Ended])), Some("internal_error"));
    snapshot.apply(Fact::Waits(Some(at(7))), at(3));
    assert_eq!(snapshot.retry_at, Some(at(7)));
    snapshot.apply(Fact::Waits(None), at(7));
    assert_eq!(snapshot.retry_at, None);
}

#[test]
fn what_is_wrong_stays_to_be_seen_while_it_goes_on_failing() {
    let started = || Fact::Started { phone: Some("5511999999999".into()) };
    let mut snapshot = snapshot_after([online(), Fact::Offline, Fact::DialFailed("refused".into()), started()]);
    assert_eq!(reason_of(&snapshot), Some("connection_failed"));
    let mut ended = snapshot.clone();
    ended.apply(Fact::Ended, at(9));
    assert_eq!(reason_of(&ended), Some("connection_lost"), "what went wrong last, not what did before");
    snapshot.apply(online(), at(9));
    assert_eq!(snapshot.reason, None);
    let refused = snapshot_after([online(), said(DisconnectCode::Failure(428)), started()]);
    assert_eq!((refused.state, refused.reason), (State::Reconnecting, None));
}

#[test]
fn a_forged_server_stops_a_pairing_but_not_a_paired_session() {
    let refused = || Fact::CertificateRefused("not signed by WhatsApp".into());
    let fresh = snapshot_after([Fact::Started { phone: None }, refused()]);
    assert_eq!((fresh.state, reason_of(&fresh)), (State::Failed, Some("server_certificate_refused")));
    let paired = snapshot_after([Fact::Started { phone: Some("5511999999999".into()) }, refused()]);
    assert_eq!((paired.state, reason_of(&paired)), (State::Connecting, Some("server_certificate_refused")));
}

#[test]
fn the_words_in_answers_are_the_names_of_the_states() {
    for state in [State::PairingQr, State::LoggedOut, State::PasskeyRequired, State::Ready] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}
