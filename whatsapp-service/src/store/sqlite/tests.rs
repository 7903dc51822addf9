//! The database by itself: what a caller above it may rely on.

mod clock;
mod mark;
mod sealed;

use std::sync::{Arc, atomic::Ordering};

use chrono::{TimeDelta, Utc};
use tempfile::TempDir;
use whatsapp_rust::{async_trait, wacore::store::traits::LidPnMappingEntry};

use crate::{
    model::{
        address::{Lid, Names, Person, number::Number},
        content::{Content, ContentKind, Location},
        event::{Event, EventKind},
        message::{Accepted, Author, Claimed, Draft, Failure, Filter, Idempotency, Message, MessageStatus, Pending},
        tenant::TenantId,
    },
    signal::owner::Owner,
    store::{
        Store,
        devices::{Devices, Record},
        error::StoreError,
        events::{Events, Received},
        kept::{Kept, KeptFor, MediaSource, MessageKeys},
        key_value::{Batch, Kind, Write},
        lease::{Lease, Leases},
        messages::Messages,
        outbox::Outbox,
        parts::{Position, Room},
        people::People,
        referred::{References, Referred},
        retries::{Noted, Retries, RetryRequest},
        rules::Rules,
        sqlite::{SqliteStore, events},
        timers::{ChatTimer, Timer, Timers},
        webhooks::Webhooks,
    },
    util::{clock::Clock, seal::Seal},
};

const RULES: Rules = Rules { keep_bodies: false, webhook_for_all: false };

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(&folder.path().join("service.db"), RULES, Seal::NONE, Clock::of_test()).unwrap()
}

impl SqliteStore {
    /// The lease of a tenant.
    pub(crate) fn held(&self, tenant: &TenantId) -> Lease {
        Lease::new(tenant.clone(), self.instance.clone(), self.epoch)
    }

    /// What was left to be done, of all tenants.
    async fn recovered(&self) -> Result<Vec<Pending>, StoreError> {
        let tenants = self.tenants_with_messages().await?;
        self.recover(&tenants.iter().map(|tenant| self.held(tenant)).collect::<Vec<_>>()).await
    }

    /// Some of a tenant's events after this number.
    async fn log(&self, tenant: &TenantId, after: i64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let (tenant, instance, seal) = (tenant.clone(), self.instance.clone(), self.seal.clone());
        self.read(move |connection| {
            let sql = "SELECT * FROM events WHERE tenant = (SELECT key FROM tenants WHERE name = ?) AND sequence > ? \
                       ORDER BY sequence LIMIT ?";
            let mut statement = connection.prepare(sql)?;
            let params = rusqlite::params![tenant.as_str(), after, limit as i64];
            statement.query_map(params, |row| events::event(row, &tenant, &instance, &seal))?.collect()
        })
        .await
    }

    /// The ids of a tenant's messages, the newest first.
    async fn listed(&self, tenant: &TenantId, filter: Filter) -> Vec<String> {
        let write = |message: &Message, _| format!("{}\n", message.id).into_bytes();
        let all = self.messages(tenant, filter, Position::behind(i64::MAX), Room::ENDLESS, write).await.unwrap();
        String::from_utf8(all.text).unwrap().lines().map(str::to_owned).collect()
    }
}

impl<T> Claimed<T> {
    fn now(self) -> Option<T> {
        if let Self::Now(found) = self { Some(found) } else { None }
    }
}

fn draft(id: &str, key: Option<(&str, u8)>) -> Draft {
    Draft {
        id: id.into(),
        recipient: Person::parse("5511888888888").unwrap(),
        names: Names::default(),
        account: None,
        content: Content::text(format!("text of {id}")),
        reference: Some(format!("reference of {id}")),
        expires_at: Utc::now() + TimeDelta::hours(1),
        tried: false,
        idempotency: key.map(|(key, body)| Idempotency { key: key.into(), fingerprint: [body; 32] }),
    }
}

fn dynamic(store: &Arc<SqliteStore>) -> Arc<dyn Store> {
    store.clone()
}

async fn accept(store: &SqliteStore, tenant: &TenantId, id: &str) -> Message {
    match store.accept(tenant, vec![draft(id, None)], 1).await.unwrap().remove(0) {
        Accepted::New(message) => *message,
        _ => panic!("{id} was not accepted"),
    }
}

async fn fate(store: &SqliteStore, tenant: &TenantId, id: &str) -> Message {
    store.message(tenant, id).await.unwrap().unwrap()
}

/// Nobody runs the device.
struct Nobody;

#[async_trait]
impl Owner for Nobody {
    async fn recall(&self, _: [String; 3]) -> bool {
        false
    }

    async fn linking(&self) {}

    fn damaged(&self, why: &str) {
        panic!("{why}");
    }
}

fn by(names: &[&str]) -> Author {
    Author { device: "7@lid".into(), names: names.iter().map(|&name| name.to_owned()).collect() }
}

/// The one whom drafts are for.
fn recipient() -> Author {
    by(&["7@lid", "5511888888888@s.whatsapp.net"])
}

fn failure() -> Failure {
    Failure { code: "because".into(), reason: "Because.".into(), retryable: true, whatsapp_code: None }
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_crash_and_with_the_next_process() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let first = accept(&store, &acme, "A").await;
    accept(&store, &acme, "B").await;
    assert_eq!(store.claim(&store.held(&acme), first.row).await.unwrap().now().unwrap().id, "A");
    // A copy of the files as they are now is what a crash would leave.
    let crashed = TempDir::new().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, crashed.path().join(path.file_name().unwrap())).unwrap();
    }
    let store = open(&crashed);
    let pending = store.recovered().await.unwrap();
    assert_eq!(pending.len(), 2);
    assert!(pending[0].row < pending[1].row && pending[0].tenant == acme);
    assert_eq!(fate(&store, &acme, "A").await.status, MessageStatus::Unknown, "it may have left");
    assert_eq!(fate(&store, &acme, "B").await.status, MessageStatus::Queued, "it can't have");
    let events = store.log(&acme, 0, 10).await.unwrap();
    assert_eq!((events.len(), events[0].sequence, events[0].kind), (1, 1, EventKind::MessageStatus));
}

#[tokio::test]
async fn a_receipt_counts_from_the_recipient_for_what_has_left() {
    use MessageStatus::{Delivered, Failed, Queued, Read, Unknown};
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let status = async |id: &str| fate(&store, &acme, id).await.status;
    accept(&store, &acme, "queued").await;
    let unknown = accept(&store, &acme, "unknown").await.row;
    store.put_back(&store.held(&acme), unknown, true).await.unwrap();
    let rejected = accept(&store, &acme, "rejected").await.row;
    store.claim(&store.held(&acme), rejected).await.unwrap();
    store.failed(&store.held(&acme), "rejected", failure()).await.unwrap();
    let all = || ["queued", "unknown", "rejected"].map(str::to_owned).to_vec();
    for stranger in [&["5511777777777@s.whatsapp.net", "100@lid"][..], &["5511888888888@lid"], &[]] {
        assert!(store.receipt(&store.held(&acme), by(stranger), all(), Read).await.unwrap().is_empty(), "{stranger:?}");
        assert_eq!(
            [status("queued").await, status("unknown").await, status("rejected").await],
            [Queued, Unknown, Failed]
        );
    }
    // The recipient can't have what never left.
    let settled = store.receipt(&store.held(&acme), recipient(), all(), Delivered).await.unwrap();
    assert_eq!(settled, ["5511888888888"], "nothing more is to be done for the one that was unknown");
    assert_eq!(
        [status("queued").await, status("unknown").await, status("rejected").await],
        [Queued, Delivered, Delivered]
    );
    // A Brazilian number may be known without its ninth digit.
    let other = Draft { recipient: Person::parse("5511988888888").unwrap(), ..draft("other form", None) };
    let Accepted::New(again) = store.accept(&acme, vec![other], 1).await.unwrap().remove(0) else { panic!() };
    store.claim(&store.held(&acme), again.row).await.unwrap();
    store
        .receipt(&store.held(&acme), by(&["551188888888@s.whatsapp.net"]), vec!["other form".into()], Delivered)
        .await
        .unwrap();
    assert_eq!(status("other form").await, Delivered);
}

#[tokio::test]
async fn a_retry_receipt_is_kept_until_it_is_answered_and_not_answered_twice() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (Arc::new(open(&folder)), tenant("acme"));
    let device = crate::signal::open(&dynamic(&store), &store.held(&acme), Arc::new(Nobody)).await.unwrap();
    let request = |count: u8| RetryRequest {
        device: "7@lid".into(),
        id: "A".into(),
        chat: "7@lid".into(),
        count,
        receipt: vec![count],
        keys_used: false,
        ack_owed: false,
        attempts: 0,
    };
    let chats = || ["7@lid", "5511888888888@s.whatsapp.net"].map(str::to_owned).to_vec();
    let row = accept(&store, &acme, "A").await.row;
    let note = async |count| store.note_retry(&store.held(&acme), request(count), recipient(), chats()).await.unwrap();
    assert_eq!(note(1).await, Noted::NoMessage, "it was never sent");
    store.claim(&store.held(&acme), row).await.unwrap();
    store.put_back(&store.held(&acme), row, true).await.unwrap();
    device.store_sent_message("5511888888888@s.whatsapp.net", "A", b"text").await.unwrap();
    assert_eq!(note(1).await, Noted::Open(Some("5511888888888".into())), "the server must have taken it");
    assert_eq!(fate(&store, &acme, "A").await.status, MessageStatus::Sent);
    assert_eq!(note(1).await, Noted::Open(None), "it was handed over again before it was answered");
    let open = async || store.open_retries(&acme).await.unwrap();
    assert_eq!(open().await, [("7@lid".to_owned(), "A".to_owned())]);
    let first = store.open_retry(&acme, "7@lid", "A").await.unwrap().expect("it is open");
    assert!(first.ack_owed, "the acknowledgement of the first copy may yet come");
    // What is known of an earlier receipt changes nothing of a later one.
    assert_eq!(note(2).await, Noted::Open(None));
    store.close_retry(&store.held(&acme), first).await.unwrap();
    assert_eq!(open().await.len(), 1);
    let second = store.open_retry(&acme, "7@lid", "A").await.unwrap().expect("it is open");
    assert_eq!((second.count, second.ack_owed), (2, false));
    store.update_retry(&store.held(&acme), RetryRequest { attempts: 1, ..second.clone() }).await.unwrap();
    store.close_retry(&store.held(&acme), second).await.unwrap();
    assert!(open().await.is_empty() && store.open_retry(&acme, "7@lid", "A").await.unwrap().is_none());
    assert_eq!(note(2).await, Noted::Answered);
    // The device itself says that it has the message.
    note(3).await;
    store.receipt(&store.held(&acme), by(&["7@lid"]), vec!["A".into()], MessageStatus::Delivered).await.unwrap();
    assert_eq!(open().await.len(), 0);
    assert_eq!(fate(&store, &acme, "A").await.status, MessageStatus::Sent, "whose device it is was not known");
    // What can't be answered is told, of what was sent to this one, until it can be read after all.
    note(4).await;
    let fourth = store.open_retry(&acme, "7@lid", "A").await.unwrap().expect("it is open");
    store.give_up_retry(&store.held(&acme), fourth, by(&["5511777777777@s.whatsapp.net"]), failure()).await.unwrap();
    assert!(fate(&store, &acme, "A").await.failure.is_none());
    store.unreadable(&store.held(&acme), "A", recipient(), failure()).await.unwrap();
    store.unreadable(&store.held(&acme), "A", recipient(), failure()).await.unwrap();
    let told = fate(&store, &acme, "A").await;
    assert_eq!((told.status, told.failure), (MessageStatus::Sent, Some(failure())));
    store.receipt(&store.held(&acme), recipient(), vec!["A".into()], MessageStatus::Delivered).await.unwrap();
    assert!(fate(&store, &acme, "A").await.failure.is_none());
    let told = store.log(&acme, 0, 10).await.unwrap().len();
    assert_eq!(told, 4, "unknown, sent, sent but not to be read, delivered");
    // Nobody is sent a message again for ever.
    for count in 5..=13 {
        assert_eq!(note(count).await, Noted::Open(None), "{count}");
        store.receipt(&store.held(&acme), recipient(), vec!["A".into()], MessageStatus::Delivered).await.unwrap();
    }
    assert_eq!(note(14).await, Noted::Answered);
}

#[tokio::test]
async fn a_message_only_moves_on() {
    use MessageStatus::{Delivered, Failed, Read, Sent, Unknown};
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let row = accept(&store, &acme, "A").await.row;
    store.put_back(&store.held(&acme), row, true).await.unwrap();
    assert_eq!(fate(&store, &acme, "A").await.status, Unknown);
    store.failed(&store.held(&acme), "A", failure()).await.unwrap();
    assert_eq!(fate(&store, &acme, "A").await.status, Failed);
    // A proof that it arrived counts for more than a refusal of its repetition.
    store.receipt(&store.held(&acme), recipient(), vec!["A".into()], Delivered).await.unwrap();
    let delivered = fate(&store, &acme, "A").await;
    assert!(delivered.status == Delivered && delivered.failure.is_none() && delivered.sent_at.is_some());
    assert!(!store.sent(&store.held(&acme), "A", Utc::now()).await.unwrap(), "nothing was to be done any more");
    store.failed(&store.held(&acme), "A", failure()).await.unwrap();
    store.receipt(&store.held(&acme), recipient(), vec!["A".into(), "nobody's".into()], Read).await.unwrap();
    store.receipt(&store.held(&acme), recipient(), vec!["A".into()], Delivered).await.unwrap();
    let read = fate(&store, &acme, "A").await;
    assert_eq!((read.status, read.delivered_at), (Read, delivered.delivered_at));
    let told: Vec<_> = store
        .log(&acme, 0, 10)
        .await
        .unwrap()
        .iter()
        .map(|event| {
            serde_json::from_str::<serde_json::Value>(event.data.get()).unwrap()["status"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(told, ["unknown", "failed", "sent", "delivered", "read"], "every step is told");
    assert!(Sent < Delivered);
}

#[tokio::test]
async fn the_same_key_is_the_same_message_and_room_is_kept() {
    let folder = TempDir::new().unwrap();
    let (store, acme, other) = (open(&folder), tenant("acme"), tenant("other"));
    let drafts =
        vec![draft("A", Some(("k", 1))), draft("B", Some(("k", 1))), draft("C", Some(("k", 2))), draft("D", None)];
    let accepted = store.accept(&acme, drafts, 1).await.unwrap();
    let [Accepted::New(a), Accepted::Known(again), Accepted::Conflict, Accepted::Full] = &accepted[..] else {
        panic!("new, known, conflict, full")
    };
    assert_eq!((a.id.as_str(), again.id.as_str(), a.row), ("A", "A", again.row));
    let theirs = store.accept(&other, vec![draft("E", Some(("k", 2)))], 1).await.unwrap();
    assert!(matches!(theirs[0], Accepted::New(_)), "keys are the tenant's own");
    assert!(store.message(&other, "A").await.unwrap().is_none(), "and so are messages");
}

#[tokio::test]
async fn what_is_given_up_has_failed_only_if_it_cannot_have_left() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let queued = accept(&store, &acme, "A").await;
    let tried = accept(&store, &acme, "B").await;
    store.claim(&store.held(&acme), tried.row).await.unwrap();
    store.give_up_all(&store.held(&acme), failure()).await.unwrap();
    let (a, b) = (fate(&store, &acme, "A").await, fate(&store, &acme, "B").await);
    assert_eq!((a.status, a.failure.unwrap().retryable), (MessageStatus::Failed, true));
    let why = b.failure.unwrap();
    assert_eq!((b.status, why.retryable, why.code.as_str()), (MessageStatus::Unknown, false, "because"));
    assert!(
        store.claim(&store.held(&acme), queued.row).await.unwrap().now().is_none()
            && store.claim(&store.held(&acme), tried.row).await.unwrap().now().is_none()
    );
    assert!(store.recovered().await.unwrap().is_empty());
    // Still, a late word counts.
    assert!(!store.sent(&store.held(&acme), "B", Utc::now()).await.unwrap());
    assert_eq!(fate(&store, &acme, "B").await.status, MessageStatus::Sent);
}

#[tokio::test]
async fn only_what_has_not_left_is_cancelled() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    accept(&store, &acme, "A").await;
    let on_its_way = accept(&store, &acme, "B").await;
    store.claim(&store.held(&acme), on_its_way.row).await.unwrap();
    assert_eq!(
        store.cancel(&store.held(&acme), "A").await.unwrap().unwrap().unwrap().failure.unwrap().code,
        "cancelled"
    );
    assert!(store.cancel(&store.held(&acme), "A").await.unwrap().unwrap().is_err());
    assert!(store.cancel(&store.held(&acme), "B").await.unwrap().unwrap().is_err());
    assert!(store.cancel(&store.held(&tenant("other")), "B").await.unwrap().is_none());
    // An attempt that provably came to nothing can be cancelled again.
    store.put_back(&store.held(&acme), on_its_way.row, false).await.unwrap();
    assert!(store.cancel(&store.held(&acme), "B").await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn a_job_that_fails_undoes_itself_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (Arc::new(open(&folder)), tenant("acme"));
    let before = accept(&store, &acme, "A");
    let broken = store.write(|tx| {
        tx.append(&tenant("acme"), EventKind::SessionState, &"undone")?;
        tx.execute("INSERT INTO nowhere VALUES (1)", ())
    });
    let bug = store.write(|tx| -> rusqlite::Result<()> {
        tx.append(&tenant("acme"), EventKind::SessionState, &"undone")?;
        panic!("a test asked for it")
    });
    let after = accept(&store, &acme, "B");
    let (_, broken, bug, _) = tokio::join!(before, broken, bug, after);
    assert!(matches!(broken, Err(StoreError::Database { .. })));
    assert!(matches!(bug, Err(StoreError::Panicked)));
    assert!(store.log(&acme, 0, 10).await.unwrap().is_empty(), "nothing of it is left");
    assert_eq!(store.last_sequence(&acme).await.unwrap(), 0);
    assert!(store.is_healthy().await);
    assert_eq!(store.listed(&acme, Filter::default()).await.len(), 2);
}

#[tokio::test]
async fn writes_that_come_together_share_a_commit() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    // The first one keeps the writer busy until all the others are queued.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let busy = store.write(move |_| {
        let _ = wait.recv();
        Ok(())
    });
    let writes = (0..100).map(|n| store.accept(&acme, vec![draft(&format!("M{n}"), None)], 1));
    // A write is queued when it is first polled.
    let writes = futures_util::future::join_all(writes);
    let (written, (), busy) = tokio::join!(writes, async { go.send(()).unwrap() }, busy);
    busy.unwrap();
    assert!(written.iter().all(Result::is_ok));
    let commits = store.writer.lock().as_ref().unwrap().health().commits.load(Ordering::Relaxed);
    assert!(commits <= 3, "{commits} commits for 101 jobs");
}

#[tokio::test]
async fn a_full_disk_is_said_and_healed() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    accept(&store, &acme, "A").await;
    let pages: i64 = store.write(|tx| tx.find("PRAGMA page_count", (), |row| row.get(0))).await.unwrap().unwrap();
    store.write(move |tx| tx.find(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(()))).await.unwrap();
    let large = || Draft { content: Content::text("x".repeat(100_000)), ..draft("B", None) };
    assert!(store.accept(&acme, vec![large()], 1).await.is_err());
    store.write(move |tx| tx.find("PRAGMA max_page_count = 1000000", (), |_| Ok(()))).await.unwrap();
    assert!(store.is_healthy().await);
    assert!(matches!(store.accept(&acme, vec![large()], 1).await.unwrap()[0], Accepted::New(_)));
    assert_eq!(fate(&store, &acme, "A").await.status, MessageStatus::Queued);
}

#[tokio::test]
async fn texts_are_dropped_when_they_are_not_needed_any_more() {
    for keep_bodies in [false, true] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("service.db");
        let (store, acme) = (
            SqliteStore::open(&path, Rules { keep_bodies, ..RULES }, Seal::NONE, Clock::of_test()).unwrap(),
            tenant("acme"),
        );
        accept(&store, &acme, "A").await;
        store.sent(&store.held(&acme), "A", Utc::now()).await.unwrap();
        assert_eq!(fate(&store, &acme, "A").await.content.is_some(), keep_bodies);
        store.close().await;
        let files =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        let left = files.into_iter().any(|file| file.windows(9).any(|bytes| bytes == b"text of A"));
        assert_eq!(left, keep_bodies, "no trace of it in the file either");
    }
}

#[tokio::test]
async fn what_is_old_is_forgotten_step_by_step_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let drafts = (0..1200).map(|n| draft(&format!("M{n}"), Some((&format!("k{n}"), 1)))).collect();
    store.accept(&acme, drafts, 1200).await.unwrap();
    for n in 0..1100 {
        store.sent(&store.held(&acme), &format!("M{n}"), Utc::now()).await.unwrap();
    }
    let future = Utc::now() + TimeDelta::hours(1);
    let mut steps = 1;
    while store.forget_messages(future, future).await.unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 3, "500 at a time");
    assert_eq!(store.recovered().await.unwrap().len(), 100, "what is to be done is kept");
    assert_eq!(store.log(&acme, 0, 2000).await.unwrap().len(), 1100);
    while store.forget_events(future).await.unwrap() {}
    assert!(store.log(&acme, 0, 1).await.unwrap().is_empty());
    assert_eq!(store.last_sequence(&acme).await.unwrap(), 1100, "numbers are not used again");
}

#[tokio::test]
async fn an_incoming_message_is_in_the_log_once() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let message = |chat: &str, id: &str| Received {
        identity: [chat.into(), "sender".into(), id.into()],
        data: Some(serde_json::json!({"id": id})),
        ..Received::default()
    };
    store.received(&store.held(&acme), vec![message("a", "1"), message("a", "2")]).await.unwrap();
    store.received(&store.held(&acme), vec![message("a", "2"), message("b", "2"), message("a", "3")]).await.unwrap();
    store.received(&store.held(&tenant("other")), vec![message("a", "1")]).await.unwrap();
    let sequences: Vec<_> = store.log(&acme, 0, 10).await.unwrap().iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
}

#[tokio::test]
async fn what_opens_the_files_of_two_senders_with_one_id_is_told_apart_and_forgotten_in_time() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let name = acme.clone();
    store.write(move |tx| tx.new_store(&name, &Record::default())).await.unwrap();
    let until = Utc::now() + TimeDelta::hours(1);
    let message = |sender: &str, at: i64| {
        let source = MediaSource {
            kind: crate::model::media::MediaKind::Image,
            path: format!("/v/{sender}"),
            key: vec![1; 32],
            sha256: vec![2; 32],
            encrypted_sha256: vec![3; 32],
            size: Some(1),
            mimetype: None,
            filename: None,
        };
        let kept = Kept {
            at,
            chat: "chat".into(),
            sender: sender.into(),
            id: "same".into(),
            from_me: false,
            what: KeptFor::Media(source),
        };
        Received {
            identity: ["chat".into(), sender.into(), "same".into()],
            data: Some(serde_json::json!({"mediaUrl": "/messages/same/media"})),
            kept: Some((kept, until)),
            ..Received::default()
        }
    };
    // Whichever name comes first in the alphabet: the order is that of their coming.
    store.received(&store.held(&acme), vec![message("zoe", 1), message("ana", 2), message("zoe", 3)]).await.unwrap();
    let kept = store.kept(&acme, "same").await.unwrap();
    assert_eq!(kept.iter().map(|kept| kept.sender.as_str()).collect::<Vec<_>>(), ["zoe", "ana"]);
    let urls: Vec<String> = store.log(&acme, 0, 10).await.unwrap().iter().map(|one| one.data.get().into()).collect();
    let of = format!("{{\"mediaUrl\":\"/messages/same/media?of={}\"}}", kept[1].digest());
    assert_eq!(urls, ["{\"mediaUrl\":\"/messages/same/media\"}".to_owned(), of]);
    let path = |kept: &Kept| match &kept.what {
        KeptFor::Media(source) => source.path.clone(),
        KeptFor::Votes(_) => String::new(),
    };
    store.moved(&store.held(&acme), &kept[1], "/v/again".into()).await.unwrap();
    let kept = store.kept(&acme, "same").await.unwrap();
    assert_eq!(kept.iter().map(path).collect::<Vec<_>>(), ["/v/zoe", "/v/again"]);
    assert!(
        store.kept(&acme, "sam").await.unwrap().is_empty()
            && store.kept(&tenant("b"), "same").await.unwrap().is_empty()
    );
    store.forget_expired(until - TimeDelta::seconds(1)).await.unwrap();
    assert_eq!(store.kept(&acme, "same").await.unwrap().len(), 2);
    store.forget_expired(until).await.unwrap();
    assert!(store.kept(&acme, "same").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_message_that_was_lost_is_asked_for_a_few_times_and_then_given_up() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let identity = |id: &str| ["chat".to_owned(), "sender".to_owned(), id.to_owned()];
    let data = |id: &str| Some(serde_json::json!({"id": id}));
    let message = |id: &str| Received { identity: identity(id), data: data(id), ..Received::default() };
    store.received(&store.held(&acme), vec![message("known")]).await.unwrap();
    assert!(!store.is_lost(&store.held(&acme), identity("known")).await.unwrap());
    assert!(store.is_lost(&store.held(&acme), identity("lost")).await.unwrap());
    store.received(&store.held(&acme), vec![message("lost")]).await.unwrap();
    assert_eq!(store.last_sequence(&acme).await.unwrap(), 2, "it came after all, once");
    assert!(!store.is_lost(&store.held(&acme), identity("lost")).await.unwrap());
    for _ in 0..5 {
        assert!(store.is_lost(&store.held(&acme), identity("gone")).await.unwrap());
    }
    assert!(!store.is_lost(&store.held(&acme), identity("gone")).await.unwrap(), "not for ever");
}

#[tokio::test]
async fn a_database_of_the_first_released_schema_is_brought_up_to_date() {
    // Made by the first release, with one row of everything; never to be edited.
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("service.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../../tests/fixtures/schema-1.sql")).unwrap();
    drop(old);
    let (store, acme) = (open(&folder), tenant("acme"));
    assert_eq!(store.recovered().await.unwrap().len(), 2);
    assert_eq!(fate(&store, &acme, "3EB0SENT").await.status, MessageStatus::Delivered);
    assert_eq!(fate(&store, &acme, "3EB0TRIED").await.status, MessageStatus::Unknown);
    let queued = fate(&store, &acme, "3EB0QUEUED").await;
    let claimed = store.claim(&store.held(&acme), queued.row).await.unwrap().now().unwrap();
    assert_eq!(claimed.content.unwrap().get(), r#"{"text":"still to be sent"}"#);
    let again = store.accept(&acme, vec![draft("new", Some(("key-1", 7)))], 1).await.unwrap();
    assert!(matches!(&again[0], Accepted::Known(message) if message.id == "3EB0SENT"));
    let events = store.log(&acme, 0, 10).await.unwrap();
    assert_eq!((events[0].id.as_str(), events[0].sequence), ("evt_0badcafe_1_1", 1));
    let webhook = store.webhook(&acme).await.unwrap();
    assert_eq!(
        (webhook.webhook.unwrap().url.as_str(), webhook.pending, webhook.dead),
        ("https://example.com/hook", 2, 1)
    );
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("service.db");
    drop(open(&folder));
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let opened = SqliteStore::open(&path, RULES, Seal::NONE, Clock::of_test());
    assert!(matches!(opened, Err(StoreError::TooNew { found: 99, .. })));
}

#[tokio::test]
async fn those_who_share_a_transaction_that_is_lost_are_all_told_so() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let busy = store.write(move |_| {
        let _ = (begin.send(()), wait.recv());
        Ok(())
    });
    // All that comes now shares the next transaction, and none of it that of the first.
    begun.recv().unwrap();
    let before = store.accept(&acme, vec![draft("A", None)], 1);
    // As SQLite does when the disk is full while its cache is written out.
    let loses_all = async { store.write(|tx| tx.execute("ROLLBACK", ())).await };
    let after = store.accept(&acme, vec![draft("B", None)], 1);
    let (_, before, _, after, ()) = tokio::join!(busy, before, loses_all, after, async { go.send(()).unwrap() });
    assert!(matches!(before, Err(StoreError::TransactionLost)) && after.is_err());
    for id in ["A", "B"] {
        assert!(store.message(&acme, id).await.unwrap().is_none(), "{id} was told to be lost, and is not there");
    }
    assert!(matches!(store.accept(&acme, vec![draft("A", None)], 1).await.unwrap()[0], Accepted::New(_)));
}

#[tokio::test]
async fn what_has_passed_its_deadline_does_not_leave() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let late = |id| Draft { expires_at: Utc::now() - TimeDelta::seconds(1), ..draft(id, None) };
    store.accept(&acme, vec![late("A"), Draft { tried: true, ..late("B") }], 2).await.unwrap();
    let row = fate(&store, &acme, "A").await.row;
    assert!(store.claim(&store.held(&acme), row).await.unwrap().now().is_none());
    let expired = store.expire().await.unwrap();
    assert_eq!((expired.len(), expired[0].row), (1, row), "what is on its way is left to its attempt");
    assert_eq!(fate(&store, &acme, "A").await.failure.unwrap().code, "expired");
}

#[tokio::test]
async fn what_an_attempt_left_without_a_word_is_given_up_in_the_end() {
    // As after a panic between the first step of an attempt and its last.
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let broken_off = Draft { expires_at: Utc::now() - TimeDelta::seconds(1), tried: true, ..draft("A", None) };
    store.accept(&acme, vec![broken_off], 1).await.unwrap();
    assert!(store.expire().await.unwrap().is_empty(), "it may be on its way");
    let row = fate(&store, &acme, "A").await.row;
    assert!(store.claim(&store.held(&acme), row).await.unwrap().now().is_none());
    assert_eq!(store.expire().await.unwrap().len(), 1);
    let given_up = fate(&store, &acme, "A").await;
    assert_eq!((given_up.status, given_up.is_settled()), (MessageStatus::Unknown, true), "nobody saw what came of it");
}

#[tokio::test]
async fn messages_are_found_by_their_ids_with_what_they_say() {
    let folder = TempDir::new().unwrap();
    let (store, acme, other) = (open(&folder), tenant("acme"), tenant("other"));
    let row = accept(&store, &acme, "A").await.row;
    let place = Content {
        reply_to: Some("A".into()),
        ..Content::alone(ContentKind::Location(Location { latitude: 1.5, longitude: 2.5, name: None, address: None }))
    };
    store.accept(&acme, vec![Draft { content: place, ..draft("B", None) }], 1).await.unwrap();
    let from_bruno = |id: &str, data: Option<serde_json::Value>| {
        let chat = "5511888888888@s.whatsapp.net";
        Received {
            identity: [chat.into(), "5511888888888:7@s.whatsapp.net".into(), id.into()],
            data,
            ..Received::default()
        }
    };
    let data = serde_json::json!({"chat": "5511888888888@s.whatsapp.net", "from": "5511888888888", "text": "Hi"});
    let messages = vec![from_bruno("C", Some(data.clone())), from_bruno("D", None), from_bruno("C", Some(data))];
    store.received(&store.held(&acme), messages).await.unwrap();

    let own = async |id: &str| match store.referred(&acme, id).await.unwrap().pop() {
        Some(Referred::Own(message)) => message,
        _ => panic!("{id} is not found"),
    };
    let text = own("A").await;
    assert_eq!((text.kind.as_str(), text.content.unwrap().get()), ("text", r#"{"text":"text of A"}"#));
    assert_eq!(own("B").await.kind, "location");
    store.give_up(&store.held(&acme), row, failure()).await.unwrap();
    assert!(own("A").await.content.is_none(), "what it says is gone with its fate");
    store.write(|tx| tx.execute("UPDATE messages SET kind = NULL", ())).await.unwrap();
    assert_eq!(own("B").await.kind, "text", "what an earlier version wrote down is a text");

    match &store.referred(&acme, "C").await.unwrap()[..] {
        [Referred::Logged(logged)] => {
            assert_eq!((logged.text.as_deref(), logged.from.as_deref()), (Some("Hi"), Some("5511888888888")));
            assert!(!logged.from_me);
        }
        found => panic!("{} of them", found.len()),
    }
    for (whose, id) in [(&acme, "D"), (&acme, "E"), (&other, "A"), (&other, "C")] {
        assert!(store.referred(whose, id).await.unwrap().is_empty(), "{id} of {whose}");
    }
    // It is forgotten with its event.
    while store.forget_events(Utc::now() + TimeDelta::seconds(1)).await.unwrap() {}
    assert!(store.referred(&acme, "C").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_timer_is_kept_with_the_device_and_the_newest_counts() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let says = |seconds: u32, set_at: i64| {
        let timer = Timer { seconds, set_at };
        let chats = vec!["1@lid".to_owned(), "5511888888888@s.whatsapp.net".to_owned()];
        let identity = ["1@lid".into(), "1@lid".into(), format!("{seconds} {set_at}")];
        vec![Received { identity, timer: Some(ChatTimer { chats, timer }), ..Received::default() }]
    };
    let known = async |chat: &str| store.timer(&acme, vec![chat.into()]).await.unwrap().map(|timer| timer.seconds);
    store.received(&store.held(&acme), says(5, 1)).await.unwrap();
    assert_eq!((known("1@lid").await, store.has_timers(&acme).await.unwrap()), (None, false), "no device, no timers");
    let name = acme.clone();
    store.write(move |tx| tx.new_store(&name, &Record::default())).await.unwrap();
    for (seconds, set_at, expected) in
        [(86_400, 10, 86_400), (604_800, 9, 86_400), (604_800, 10, 604_800), (0, 11, 0), (7, 0, 0)]
    {
        store.received(&store.held(&acme), says(seconds, set_at)).await.unwrap();
        for chat in ["1@lid", "5511888888888@s.whatsapp.net"] {
            assert_eq!(known(chat).await, Some(expected), "{seconds} at {set_at}");
        }
    }
    assert_eq!((known("2@lid").await, store.has_timers(&acme).await.unwrap()), (None, true));
    let first_known = store.timer(&acme, vec!["2@lid".into(), "1@lid".into()]).await.unwrap();
    assert_eq!(first_known, Some(Timer { seconds: 0, set_at: 11 }));
    // The same message again is nothing new, whatever is known by now.
    store.received(&store.held(&acme), says(86_400, 10)).await.unwrap();
    assert_eq!(known("1@lid").await, Some(0));
    store.delete_device(&store.held(&acme)).await.unwrap();
    assert_eq!((known("1@lid").await, store.has_timers(&acme).await.unwrap()), (None, false));
}

#[tokio::test]
async fn what_can_not_be_read_is_told_once_and_again_when_it_can() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let identity = |id: &str| ["chat".into(), "sender".into(), id.to_owned()];
    let said = |text: &str| serde_json::json!({ "text": text });
    let message =
        |id: &str| vec![Received { identity: identity(id), data: Some(said("words")), ..Received::default() }];
    let waits = async |id: &str| {
        store.told_once(&store.held(&acme), identity(id), EventKind::MessagePlaceholder, said("…")).await.unwrap()
    };
    for _ in 0..2 {
        waits("A").await;
    }
    assert!(store.is_lost(&store.held(&acme), identity("A")).await.unwrap(), "it is in no log");
    for _ in 0..2 {
        store.received(&store.held(&acme), message("A")).await.unwrap();
    }
    waits("A").await;
    store.received(&store.held(&acme), message("B")).await.unwrap();
    waits("B").await;
    for _ in 0..2 {
        store.told_once(&store.held(&acme), identity("call"), EventKind::CallMissed, said("ring")).await.unwrap();
    }
    let told: Vec<_> = store.log(&acme, 0, 10).await.unwrap().iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(told, ["message.placeholder", "message.received", "message.received", "call.missed"]);
}

/// Links a device, and has it learn which number goes with which LID.
async fn learns(store: &Arc<SqliteStore>, tenant: &TenantId, number: &str, lid: &str) {
    let entry = LidPnMappingEntry {
        lid: lid.into(),
        phone_number: number.into(),
        created_at: 1,
        updated_at: 1,
        learning_source: "usync".into(),
    };
    let (_, values) = store.clone().device(&store.held(tenant)).await.unwrap();
    let writes = crate::signal::protocol::put_mappings(&[entry], &[None]).unwrap();
    assert!(values.apply(Batch { expected: Vec::new(), writes }).await.unwrap());
}

#[tokio::test]
async fn a_stale_lease_writes_nothing() {
    let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
    let (stale, values) = {
        let store = Arc::new(open(&folder));
        let row = accept(&store, &acme, "A").await.row;
        let lease = store.lease(&acme).await.unwrap();
        let (_, values) = store.clone().device(&lease).await.unwrap();
        assert!(store.claim(&lease, row).await.unwrap().now().is_some());
        store.close().await;
        (lease, values)
    };
    let put = || Batch { expected: Vec::new(), writes: vec![Write::put(Kind::Session, b"somebody", b"ratchet")] };
    assert!(values.apply(put()).await.is_err(), "its store is closed");
    let store = Arc::new(open(&folder));
    let fresh = store.lease(&acme).await.unwrap();
    assert!(fresh.epoch() > stale.epoch());
    let fenced = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Fenced)), "{result:?}");
    fenced(store.sent(&stale, "A", Utc::now()).await.map(drop));
    fenced(store.recover(std::slice::from_ref(&stale)).await.map(drop));
    fenced(store.session_state(&stale, serde_json::json!({})).await);
    fenced(store.clone().device(&fresh).await.map(drop).and(store.delete_device(&stale).await));
    let (_, values) = store.clone().device(&stale).await.unwrap();
    fenced(values.apply(put()).await.map(drop));
    assert!(values.get(Kind::Session, b"somebody").await.unwrap().is_none());
    assert_eq!(fate(&store, &acme, "A").await.status, MessageStatus::Queued);
    assert!(store.log(&acme, 0, 9).await.unwrap().is_empty());
    assert_eq!(store.recover(&[fresh]).await.unwrap().len(), 1);
    assert_eq!(fate(&store, &acme, "A").await.status, MessageStatus::Unknown);
}

#[tokio::test]
async fn a_batch_is_applied_if_all_is_as_expected() {
    let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
    let store = Arc::new(open(&folder));
    let (_, values) = store.clone().device(&store.held(&acme)).await.unwrap();
    let key = || (Kind::TcToken, b"somebody".to_vec());
    let batch = |expected: Option<&[u8]>, value: &[u8]| Batch {
        expected: vec![(key(), expected.map(<[u8]>::to_vec))],
        writes: vec![Write::put(Kind::TcToken, b"somebody", value), Write::put(Kind::TcToken, b"other", value)],
    };
    assert!(!values.apply(batch(Some(b"0"), b"1")).await.unwrap(), "there is none");
    assert!(values.get(Kind::TcToken, b"other").await.unwrap().is_none());
    assert!(values.apply(batch(None, b"1")).await.unwrap());
    assert!(!values.apply(batch(None, b"2")).await.unwrap());
    assert!(values.apply(batch(Some(b"1"), b"2")).await.unwrap());
    let found = values.get_many(vec![key(), (Kind::TcToken, b"nobody".to_vec())]).await.unwrap();
    assert_eq!(found, [Some((b"2".to_vec(), None)), None]);
    let (_, theirs) = store.clone().device(&store.held(&tenant("other"))).await.unwrap();
    assert!(theirs.all(Kind::TcToken, Vec::new()).await.unwrap().is_empty(), "values are the tenant's own");
}

#[tokio::test]
async fn a_persons_names_are_those_that_the_device_has_learned() {
    let (folder, acme, other) = (TempDir::new().unwrap(), tenant("acme"), tenant("other"));
    let store = Arc::new(open(&folder));
    let [number, lid] = ["5511888888888", "713715344025739@lid"].map(|text| Person::parse(text).unwrap());
    let alone = Names::of(number.clone(), Names::default());
    assert_eq!(store.names_of(&acme, &number).await.unwrap(), alone, "there is no device");
    learns(&store, &acme, "5511888888888", "713715344025739").await;
    let both = Names { number: Number::of_whatsapp("5511888888888"), lid: Lid::new("713715344025739") };
    for name in [&number, &lid] {
        assert_eq!(store.names_of(&acme, name).await.unwrap(), both);
    }
    assert_eq!(store.names_of(&other, &number).await.unwrap(), alone);
    let known =
        async |tenant, lid: &str| store.known_lid(tenant, vec!["1".into(), lid.into()]).await.unwrap() == Some(1);
    assert!(known(&acme, "713715344025739").await);
    assert!(!known(&other, "713715344025739").await);
    // Of whom only keys are known.
    let keys = |address: &'static str| {
        store.write(move |tx| {
            let key: i64 = tx.find("SELECT key FROM stores", (), |row| row.get(0))?.unwrap();
            tx.cells(key)?.put(Kind::Identity, address.as_bytes(), &[0; 32])
        })
    };
    for (address, digits, is_lid) in [
        ("100000000000001@lid.0", "100000000000001", true),
        ("100000000000002:5@lid.0", "100000000000002", true),
        ("100000000000003@s.whatsapp.net.0", "100000000000003", false),
        ("100000000000004:5@s.whatsapp.net.0", "100000000000004", false),
        ("1000000000000055@lid.0", "100000000000005", false),
    ] {
        keys(address).await.unwrap();
        assert_eq!(known(&acme, digits).await, is_lid, "{address}");
    }
}

#[tokio::test]
async fn a_message_shows_the_names_that_are_known_and_is_left_with_those_that_were_learned_since() {
    let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
    let store = Arc::new(open(&folder));
    let [number, lid, stranger] =
        ["5511888888888", "713715344025739@lid", "100@lid"].map(|text| Person::parse(text).unwrap());
    let both = Names { number: Number::of_whatsapp("5511888888888"), lid: Lid::new("713715344025739") };
    let to =
        |id: &str, recipient: &Person, names: Names| Draft { recipient: recipient.clone(), names, ..draft(id, None) };
    let drafts = vec![
        to("A", &number, Names::default()),
        to("B", &lid, Names::of(lid.clone(), Names::default())),
        to("C", &lid, both.clone()),
        to("D", &stranger, Names::default()),
    ];
    store.accept(&acme, drafts, 9).await.unwrap();
    let shown = async |id: &str| {
        let message = serde_json::to_value(fate(&store, &acme, id).await).unwrap();
        (message["to"].as_str().unwrap().to_owned(), message["toLid"].as_str().unwrap_or_default().to_owned())
    };
    let names = |number: &str, lid: &str| (number.to_owned(), lid.to_owned());
    assert_eq!(shown("A").await, names("5511888888888", ""));
    assert_eq!(shown("B").await, names("713715344025739@lid", "713715344025739"));
    assert_eq!(shown("C").await, names("5511888888888", "713715344025739"));
    assert_eq!(shown("D").await, names("100@lid", ""));
    store.names(&store.held(&acme), "B", both.clone()).await.unwrap();
    store.names(&store.held(&acme), "D", Names { number: None, lid: Lid::new("100") }).await.unwrap();
    store.sent(&store.held(&acme), "D", Utc::now()).await.unwrap();
    assert_eq!(shown("B").await, names("5511888888888", "713715344025739"));
    assert_eq!(shown("D").await, names("100@lid", "100"));
    assert!(fate(&store, &acme, "B").await.shows(&both) && !fate(&store, &acme, "A").await.shows(&both));

    let left = async || store.recovered().await.unwrap().into_iter().map(|message| message.names).collect::<Vec<_>>();
    let alone = Names::of(number.clone(), Names::default());
    assert_eq!(left().await, [alone, both.clone(), both.clone()]);
    learns(&store, &acme, "5511888888888", "713715344025739").await;
    assert_eq!(left().await, [both.clone(), both.clone(), both], "the same person, whatever they were called then");
}

#[tokio::test]
async fn messages_are_listed_by_each_name_of_their_recipient_also_without_a_device() {
    let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
    let store = open(&folder);
    let [number, lid, other] =
        ["5511888888888", "713715344025739@lid", "5511777777777"].map(|text| Person::parse(text).unwrap());
    let both = Names { number: Number::of_whatsapp("5511888888888"), lid: Lid::new("713715344025739") };
    let to = |id: &str, recipient: &Person, names: &Names| Draft {
        recipient: recipient.clone(),
        names: names.clone(),
        ..draft(id, None)
    };
    let drafts = vec![to("A", &number, &both), to("B", &lid, &both), to("C", &other, &Names::default())];
    store.accept(&acme, drafts, 9).await.unwrap();
    let alone = |person: &Person| Names::of(person.clone(), Names::default());
    for names in [alone(&number), alone(&lid), both] {
        assert_eq!(store.listed(&acme, Filter { recipient: Some(names), ..Filter::default() }).await, ["B", "A"]);
    }
}
