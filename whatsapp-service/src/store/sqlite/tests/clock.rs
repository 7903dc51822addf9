//! What the database does while the clock is wrong.

use crate::{
    model::message::{Accepted, Claimed, Draft, Filter, Message, MessageStatus},
    store::sqlite::tests::*,
};

const DAY: TimeDelta = TimeDelta::hours(25);

fn with_clock(folder: &TempDir) -> (SqliteStore, Clock) {
    let clock = Clock::of_test();
    let path = folder.path().join("service.db");
    (SqliteStore::open(&path, RULES, Seal::NONE, clock.clone()).unwrap(), clock)
}

/// A message that is given up an hour after its acceptance.
async fn accept_with_key(store: &SqliteStore, clock: &Clock, id: &str) -> Message {
    let draft = Draft { expires_at: clock.now() + TimeDelta::hours(1), ..draft(id, Some((id, 1))) };
    match store.accept(&tenant("acme"), vec![draft], 9).await.unwrap().remove(0) {
        Accepted::New(message) => *message,
        _ => panic!("{id} was not accepted"),
    }
}

async fn status(store: &SqliteStore, id: &str) -> MessageStatus {
    fate(store, &tenant("acme"), id).await.status
}

#[tokio::test]
async fn a_jump_forward_and_back_expires_nothing_and_what_waits_is_sent() {
    let folder = TempDir::new().unwrap();
    let (store, clock) = with_clock(&folder);
    let acme = tenant("acme");
    let [first, second] = [accept_with_key(&store, &clock, "A").await, accept_with_key(&store, &clock, "B").await];
    clock.jump(DAY);
    assert!(store.expire().await.unwrap().is_empty());
    let claimed = store.claim(&store.held(&acme), first.row).await.unwrap().now().expect("it may go");
    assert_eq!(claimed.id, "A");
    // What is accepted meanwhile has its hour from then on.
    let third = accept_with_key(&store, &clock, "C").await;
    assert!(third.accepted_at - second.accepted_at < TimeDelta::minutes(1), "it is not of tomorrow");
    clock.jump(-DAY);
    clock.pass(TimeDelta::minutes(11));
    assert!(store.expire().await.unwrap().is_empty());
    assert_eq!(status(&store, "B").await, MessageStatus::Queued);
    clock.pass(TimeDelta::hours(1));
    let expired: Vec<_> = store.expire().await.unwrap().iter().map(|pending| pending.row).collect();
    assert_eq!(expired, [second.row, third.row], "time that passes counts");
}

#[tokio::test]
async fn a_clock_that_stays_where_it_jumped_to_counts_in_the_end() {
    let folder = TempDir::new().unwrap();
    let (store, clock) = with_clock(&folder);
    accept_with_key(&store, &clock, "A").await;
    clock.jump(DAY);
    assert!(store.expire().await.unwrap().is_empty());
    clock.pass(TimeDelta::minutes(9));
    assert!(store.expire().await.unwrap().is_empty());
    clock.pass(TimeDelta::minutes(2));
    assert_eq!(store.expire().await.unwrap().len(), 1);
}

#[tokio::test]
async fn after_a_long_while_nobody_can_say_what_is_too_late() {
    let folder = TempDir::new().unwrap();
    let acme = tenant("acme");
    let row = {
        let (store, clock) = with_clock(&folder);
        let row = accept_with_key(&store, &clock, "A").await.row;
        store.close().await;
        row
    };
    let later = Clock::of_test_ahead(DAY);
    // The clock was put forward meanwhile, or the service was down.
    let store = SqliteStore::open(&folder.path().join("service.db"), RULES, Seal::NONE, later.clone()).unwrap();
    assert!(store.expire().await.unwrap().is_empty());
    assert!(matches!(store.claim(&store.held(&acme), row).await.unwrap(), Claimed::Later), "neither sent nor given up");
    assert!(matches!(store.departs(&store.held(&acme), row).await.unwrap(), Claimed::Later));
    assert!(matches!(store.claim(&store.held(&acme), row + 1).await.unwrap(), Claimed::Never), "there is none");
    later.pass(TimeDelta::minutes(10));
    assert!(matches!(store.claim(&store.held(&acme), row).await.unwrap(), Claimed::Never));
    assert_eq!(store.expire().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_clock_put_back_has_stamped_is_found_by_its_time() {
    let folder = TempDir::new().unwrap();
    let (store, clock) = with_clock(&folder);
    let acme = tenant("acme");
    for id in ["A", "B"] {
        accept_with_key(&store, &clock, id).await;
    }
    clock.jump(-DAY);
    clock.now();
    clock.pass(TimeDelta::minutes(10));
    let back = accept_with_key(&store, &clock, "C").await;
    clock.jump(DAY);
    clock.now();
    clock.pass(TimeDelta::minutes(10));
    let now = accept_with_key(&store, &clock, "D").await;
    assert!(back.accepted_at < now.accepted_at - TimeDelta::hours(24));
    let since = async |since| store.listed(&acme, Filter { since: Some(since), ..Filter::default() }).await;
    assert_eq!(since(now.accepted_at - TimeDelta::hours(1)).await, ["D", "B", "A"], "C lies between them");
    assert_eq!(since(back.accepted_at).await, ["D", "C", "B", "A"]);
    assert_eq!(since(now.accepted_at).await, ["D"]);
}

#[tokio::test]
async fn a_clock_before_1970_is_a_clock() {
    let folder = TempDir::new().unwrap();
    let (store, clock) = with_clock(&folder);
    let acme = tenant("acme");
    clock.jump(TimeDelta::days(-60 * 365));
    clock.now();
    clock.pass(TimeDelta::minutes(10));
    assert!(clock.now().timestamp() < 0);
    let message = accept_with_key(&store, &clock, "A").await;
    assert_eq!(fate(&store, &acme, "A").await.accepted_at.timestamp(), message.accepted_at.timestamp());
    assert!(store.claim(&store.held(&acme), message.row).await.unwrap().now().is_some());
    clock.pass(TimeDelta::hours(2));
    store.put_back(&store.held(&acme), message.row, true).await.unwrap();
    assert_eq!(store.expire().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_clock_far_ahead_has_stamped_counts_as_of_now() {
    let folder = TempDir::new().unwrap();
    let (store, clock) = with_clock(&folder);
    let acme = tenant("acme");
    let years = TimeDelta::days(40 * 365);
    clock.jump(years);
    clock.now();
    clock.pass(TimeDelta::minutes(10));
    let settled = accept_with_key(&store, &clock, "settled").await;
    store.give_up(&store.held(&acme), settled.row, failure()).await.unwrap();
    accept_with_key(&store, &clock, "waiting").await;
    let store = Arc::new(store);
    let device = crate::signal::open(&dynamic(&store), &store.held(&acme), Arc::new(Nobody)).await.unwrap();
    device.store_sent_message("5511888888888@s.whatsapp.net", "waiting", b"text").await.unwrap();
    clock.jump(-years);
    clock.now();
    clock.pass(TimeDelta::minutes(10));
    store.correct_times(TimeDelta::days(8)).await.unwrap();
    let kept = store.read(|connection| connection.query_row("SELECT max(expires_at) FROM state", (), |row| row.get(0)));
    let kept: i64 = kept.await.unwrap();
    assert!(
        kept <= (clock.now() + TimeDelta::days(8)).timestamp_millis(),
        "texts too are kept for days and not for years"
    );
    let in_days = |days| clock.now() + TimeDelta::days(days);
    assert_eq!(store.log(&acme, 0, 9).await.unwrap().len(), 1);
    assert!(fate(&store, &acme, "waiting").await.expires_at < in_days(8));
    clock.pass(TimeDelta::days(9));
    assert_eq!(store.expire().await.unwrap().len(), 1);
    store.forget_events(in_days(-8)).await.unwrap();
    store.forget_messages(in_days(-8), in_days(-8)).await.unwrap();
    assert_eq!(store.log(&acme, 0, 9).await.unwrap().len(), 1, "what was told now");
    assert!(store.message(&acme, "settled").await.unwrap().is_none());
    let again = store.accept(&acme, vec![draft("again", Some(("settled", 2)))], 9).await.unwrap();
    assert!(matches!(again[0], Accepted::New(_)), "the key is forgotten");
}
