//! Encryption at rest: what is in the file, which keys open it, and how it gets another.

use std::{collections::BTreeSet, fs, path::PathBuf};

use crate::{
    model::message::{Accepted, Claimed, Message},
    store::{
        devices::RecordChange,
        sqlite::{cells::Cells, rekey::rekey, tests::*},
        webhooks::Webhook,
    },
    util::seal::{self, WrongKey},
};

fn key(byte: u8) -> Seal {
    use base64::{Engine, prelude::BASE64_STANDARD};
    Seal::with_key(&BASE64_STANDARD.encode([byte; 32])).unwrap()
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("service.db")
}

fn open_with(folder: &TempDir, seal: &Seal) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(&path(folder), Rules { keep_bodies: true, ..RULES }, seal.clone(), Clock::of_test())
}

/// What nobody is to find.
const SECRETS: [&str; 7] = [
    "text of A",
    "an incoming text",
    "https://example.com/token",
    "whsec_secret",
    "5511777777777",
    "a ratchet",
    "a-proxys-password",
];

fn proxy() -> crate::net::proxy::Proxy {
    format!("socks5://user:{}@proxy.example:1080", SECRETS[6]).parse().unwrap()
}

/// One of everything that is sealed.
async fn fill(store: &SqliteStore, tenant: &TenantId) {
    let webhook = Webhook { url: SECRETS[2].into(), secret: SECRETS[3].into(), events: None };
    store.put_webhook(&store.held(tenant), webhook).await.unwrap();
    store.accept(tenant, vec![draft("A", Some(("k", 7)))], 1).await.unwrap();
    let (name, record) = (tenant.clone(), Record { paired: true, phone: Some(SECRETS[4].into()), ..Record::default() });
    let keys = store.write(move |tx| {
        let device = tx.new_store(&name, &Record::default())?;
        tx.cells(device)?.put(Kind::Session, b"an address", SECRETS[5].as_bytes())
    });
    keys.await.unwrap();
    store.change_record(&store.held(tenant), vec![RecordChange::Linked(record.phone)]).await.unwrap();
    store.change_record(&store.held(tenant), vec![RecordChange::Proxy(Some(proxy()))]).await.unwrap();
    let data = Some(serde_json::json!({"text": SECRETS[1]}));
    let identity = ["c".into(), "s".into(), "i".into()];
    store.received(&store.held(tenant), vec![Received { identity, data, ..Received::default() }]).await.unwrap();
}

/// Everything that was filled in can be used.
async fn check(store: &SqliteStore, tenant: &TenantId) {
    let message = fate(store, tenant, "A").await;
    assert_eq!(message.content.unwrap().get(), r#"{"text":"text of A"}"#);
    let again = store.accept(tenant, vec![draft("B", Some(("k", 7)))], 1).await.unwrap();
    assert!(matches!(&again[0], Accepted::Known(known) if known.id == "A"));
    let other = store.known(tenant, vec![draft("B", Some(("k", 8))).idempotency]).await.unwrap();
    assert!(matches!(other[0], Some(Accepted::Conflict)));
    let (record, value) = device(store, tenant).await;
    let record = record.unwrap();
    assert_eq!((record.phone.unwrap(), value.unwrap()), (SECRETS[4].into(), SECRETS[5].into()));
    assert_eq!(record.proxy, Some(proxy()));
    let events = store.log(tenant, 0, 10).await.unwrap();
    assert_eq!(events[0].data.get(), r#"{"text":"an incoming text"}"#);
    let delivery = store.next_delivery(tenant).await.unwrap().unwrap();
    assert_eq!(delivery.events[0].data.get(), events[0].data.get());
    let webhook = delivery.webhook.unwrap();
    assert_eq!((webhook.url.as_str(), webhook.secret.as_str()), (SECRETS[2], SECRETS[3]));
    let later = Utc::now() + TimeDelta::hours(1);
    assert!(
        store.delivery_failed(&store.held(tenant), Some(webhook), "no".into(), later).await.unwrap(),
        "it is still the webhook"
    );
}

/// What is known of the tenant's session, and what its device keeps.
async fn device(store: &SqliteStore, tenant: &TenantId) -> (Result<Record, StoreError>, Result<Vec<u8>, StoreError>) {
    let record = store.linked().await.unwrap().into_iter().find(|(name, _)| name == tenant).unwrap().1;
    let (name, seal) = (tenant.clone(), store.seal.clone());
    let value = store.read(move |connection| {
        let sql = "SELECT stores.key FROM stores JOIN tenants ON tenants.key = tenant WHERE name = ?";
        let device = connection.query_row(sql, [name.as_str()], |row| row.get(0))?;
        Ok(Cells::of(connection, &seal, device).get(Kind::Session, b"an address")?.unwrap())
    });
    (record, value.await)
}

/// Which of the secrets stand in the files.
fn found(folder: &TempDir) -> Vec<&'static str> {
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let all: Vec<u8> = files.flatten().collect();
    let is_there = |secret: &&str| all.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
    SECRETS.into_iter().filter(is_there).collect()
}

#[tokio::test]
async fn with_a_key_everything_works_and_nothing_can_be_read_in_the_files() {
    for (seal, readable) in [(Seal::NONE, &SECRETS[..]), (key(1), &[])] {
        let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
        let store = open_with(&folder, &seal).unwrap();
        fill(&store, &acme).await;
        check(&store, &acme).await;
        assert_eq!(found(&folder), readable, "while it runs");
        store.close().await;
        assert_eq!(found(&folder), readable, "and after it");
        let store = open_with(&folder, &seal).unwrap();
        check(&store, &acme).await;
        let row = fate(&store, &acme, "A").await.row;
        let claimed = store.claim(&store.held(&acme), row).await.unwrap().now().unwrap();
        assert_eq!(claimed.content.unwrap().get(), r#"{"text":"text of A"}"#);
    }
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_refused_and_nothing_is_touched() {
    for (seal, others) in [
        (Seal::NONE, vec![(key(1), WrongKey::NotNeeded)]),
        (key(1), vec![(Seal::NONE, WrongKey::Missing), (key(2), WrongKey::Other)]),
    ] {
        let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
        let store = open_with(&folder, &seal).unwrap();
        fill(&store, &acme).await;
        // What a crash leaves: there is more in the log than in the file.
        let crashed = TempDir::new().unwrap();
        for name in ["service.db", "service.db-wal"] {
            fs::copy(folder.path().join(name), crashed.path().join(name)).unwrap();
        }
        store.close().await;
        for folder in [folder, crashed] {
            let bytes = || {
                (fs::read(path(&folder)).unwrap(), fs::read(folder.path().join("service.db-wal")).unwrap_or_default())
            };
            let before = bytes();
            for (other, why) in &others {
                for _ in 0..2 {
                    let refused = open_with(&folder, other).map(drop);
                    assert!(matches!(&refused, Err(StoreError::WrongKey(found)) if found == why), "{refused:?}");
                    let refused = rekey(&path(&folder), other, &key(3));
                    assert!(matches!(&refused, Err(StoreError::WrongKey(found)) if found == why), "{refused:?}");
                    assert!(bytes() == before, "not a byte is another");
                }
            }
            check(&open_with(&folder, &seal).unwrap(), &acme).await;
        }
    }
}

#[tokio::test]
async fn a_new_key_can_be_given_taken_away_and_given_again() {
    let (folder, acme, other) = (TempDir::new().unwrap(), tenant("acme"), tenant("other"));
    let store = open_with(&folder, &Seal::NONE).unwrap();
    fill(&store, &acme).await;
    fill(&store, &other).await;
    // The last message is gone, and its number must not be given to another.
    accept(&store, &acme, "gone").await;
    store.write(|tx| tx.execute("DELETE FROM messages WHERE id = 'gone'", ())).await.unwrap();
    let instance = store.instance.clone();
    store.close().await;
    let mut now = Seal::NONE;
    for next in [key(1), key(2), Seal::NONE, key(1)] {
        assert_eq!(rekey(&path(&folder), &now, &next).unwrap(), 14, "values of seven columns and two tenants");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "there is one file, and its mark");
        assert!(open_with(&folder, &now).is_err(), "the old key is of no use");
        assert_eq!(found(&folder).is_empty(), next.has_key());
        now = next;
        let store = open_with(&folder, &now).unwrap();
        check(&store, &acme).await;
        check(&store, &other).await;
        assert_eq!(store.instance, instance);
        store.close().await;
    }
    let store = open_with(&folder, &now).unwrap();
    assert_eq!(accept(&store, &acme, "next").await.row, 4);
    let indices = store.write(|tx| tx.all("SELECT name FROM sqlite_schema WHERE type = 'index'", (), |row| row.get(0)));
    let fresh = TempDir::new().unwrap();
    let as_made = open_with(&fresh, &now).unwrap();
    let made = as_made.write(|tx| tx.all("SELECT name FROM sqlite_schema WHERE type = 'index'", (), |row| row.get(0)));
    let (indices, made): (BTreeSet<String>, BTreeSet<String>) =
        (indices.await.unwrap().into_iter().collect(), made.await.unwrap().into_iter().collect());
    assert_eq!(indices, made);
}

#[tokio::test]
async fn a_database_of_the_first_schema_can_be_sealed() {
    let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
    let old = rusqlite::Connection::open(path(&folder)).unwrap();
    old.execute_batch(include_str!("../../../../tests/fixtures/schema-1.sql")).unwrap();
    drop(old);
    let refused = open_with(&folder, &key(1)).map(drop);
    assert!(matches!(refused, Err(StoreError::WrongKey(WrongKey::NotNeeded))), "{refused:?}");
    rekey(&path(&folder), &Seal::NONE, &key(1)).unwrap();
    let store = open_with(&folder, &key(1)).unwrap();
    let queued = fate(&store, &acme, "3EB0QUEUED").await;
    let claimed = store.claim(&store.held(&acme), queued.row).await.unwrap().now().unwrap();
    assert_eq!(claimed.content.unwrap().get(), r#"{"text":"still to be sent"}"#);
    let again = store.accept(&acme, vec![draft("new", Some(("key-1", 7)))], 1).await.unwrap();
    assert!(matches!(&again[0], Accepted::Known(message) if message.id == "3EB0SENT"));
    assert_eq!(store.webhook(&acme).await.unwrap().webhook.unwrap().url, "https://example.com/hook");
}

#[tokio::test]
async fn what_is_moved_to_another_row_is_not_taken_for_its_own() {
    let folder = TempDir::new().unwrap();
    let (store, acme, other) = (open_with(&folder, &key(1)).unwrap(), tenant("acme"), tenant("other"));
    fill(&store, &acme).await;
    fill(&store, &other).await;
    let move_it = |column: &'static seal::Column| {
        let (table, name, of) = (column.table, column.name, column.row[0]);
        store.write(move |tx| {
            let from = format!("(SELECT {name} FROM {table} WHERE {of} = 1)");
            tx.execute(&format!("UPDATE {table} SET {name} = {from} WHERE {of} = 2"), ())
        })
    };
    for column in seal::COLUMNS {
        assert_eq!(move_it(column).await.unwrap(), 1, "{column:?}");
    }
    assert!(fate(&store, &other, "A").await.content.is_none(), "another's text is not sent");
    assert!(store.known(&other, vec![draft("B", Some(("k", 7))).idempotency]).await.is_err());
    assert!(store.log(&other, 0, 10).await.is_err());
    assert!(store.webhook(&other).await.is_err());
    let (record, value) = device(&store, &other).await;
    assert!(matches!((record, value), (Err(StoreError::Damaged(_)), Err(StoreError::Damaged(_)))));
    check(&store, &acme).await;
}

/// A message that is to be sent now.
async fn claim(store: &SqliteStore, tenant: &TenantId, row: i64) -> Box<Message> {
    match store.claim(&store.held(tenant), row).await.unwrap() {
        Claimed::Now(message) => message,
        _ => panic!("it is still to be sent"),
    }
}

/// Has a message that waits go to somebody else, as whoever can write the file could.
async fn redirect(store: &SqliteStore) {
    let sql = "UPDATE messages SET recipient = '5511777777777', number = '5511777777777'";
    assert_eq!(store.write(move |tx| tx.execute(sql, ())).await.unwrap(), 1);
}

#[tokio::test]
async fn a_message_that_is_redirected_says_nothing_to_anybody() {
    let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
    let store = open_with(&folder, &key(1)).unwrap();
    let row = accept(&store, &acme, "A").await.row;
    assert!(claim(&store, &acme, row).await.content.is_some());
    redirect(&store).await;
    assert!(claim(&store, &acme, row).await.content.is_none());
    assert!(fate(&store, &acme, "A").await.content.is_none());
}

#[tokio::test]
async fn what_was_sealed_without_its_recipient_is_read_and_sealed_with_it_from_then_on() {
    let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
    let store = open_with(&folder, &key(1)).unwrap();
    let row = accept(&store, &acme, "A").await.row;
    accept(&store, &acme, "damaged").await;
    accept(&store, &acme, "settled").await;
    // As the version before left it.
    let before = store.write(move |tx| {
        let place = [&b"acme"[..], b"A"];
        let content = tx.seal().seal(&seal::CONTENT_WITHOUT_RECIPIENT, &place, br#"{"text":"text of A"}"#);
        tx.execute("UPDATE messages SET content = ? WHERE id = 'A'", [content])?;
        tx.execute("UPDATE messages SET content = x'00' WHERE id = 'damaged'", ())?;
        tx.execute("UPDATE messages SET content = NULL WHERE id = 'settled'", ())?;
        tx.execute("ALTER TABLE messages DROP COLUMN lid", ())?;
        tx.execute("PRAGMA user_version = 8", ())
    });
    before.await.unwrap();
    store.close().await;
    for _ in 0..2 {
        let store = open_with(&folder, &key(1)).unwrap();
        assert_eq!(fate(&store, &acme, "A").await.content.unwrap().get(), r#"{"text":"text of A"}"#);
        assert!(fate(&store, &acme, "damaged").await.content.is_none());
        store.close().await;
    }
    let store = open_with(&folder, &key(1)).unwrap();
    store.write(|tx| tx.execute("DELETE FROM messages WHERE id <> 'A'", ())).await.unwrap();
    redirect(&store).await;
    assert!(claim(&store, &acme, row).await.content.is_none());
}

#[tokio::test]
async fn a_rekeying_that_fails_or_is_interrupted_leaves_the_database_as_it_was() {
    let (folder, acme) = (TempDir::new().unwrap(), tenant("acme"));
    let store = open_with(&folder, &key(1)).unwrap();
    fill(&store, &acme).await;
    store.close().await;
    // Half of a new file is there, as after a kill.
    fs::write(path(&folder).with_extension("db.rekeyed"), "an incoming text").unwrap();
    let store = open_with(&folder, &key(1)).unwrap();
    assert!(found(&folder).is_empty(), "it is gone");
    // And a value can't be opened, so that nobody can seal it anew.
    store.write(|tx| tx.execute("UPDATE webhooks SET secret = x'00'", ())).await.unwrap();
    store.close().await;
    let failed = rekey(&path(&folder), &key(1), &key(2));
    assert!(matches!(&failed, Err(error) if error.to_string().contains("webhooks.secret")), "{failed:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left of the new file");
    let store = open_with(&folder, &key(1)).unwrap();
    assert_eq!(fate(&store, &acme, "A").await.content.unwrap().get(), r#"{"text":"text of A"}"#);
}

#[tokio::test]
async fn of_every_column_it_is_decided_whether_it_is_sealed() {
    // What is looked up, sorted or counted, and what says nothing of a text or a key. A new column belongs here, or into
    // the list of those that are sealed; and into docs/operations.md.
    const PLAIN: [(&str, &str); 12] = [
        ("deliveries", "failures last_error next_attempt_at restarted_at stopped tenant"),
        ("events", "at delivery kind sequence tenant"),
        ("idempotency", "at key message tenant"),
        ("imported", "folder"),
        ("instance", "epoch id"),
        (
            "messages",
            "accepted_at account attempts code delivered_at expires_at failed_at id kind lid media number \
             pending played_at read_at reason recipient reference retryable row sent_at server_at status tenant tried \
             unknown_at whatsapp_code",
        ),
        ("received", "asked at id message sequence tenant"),
        ("sealing", "proof"),
        ("state", "expires_at kind name store"),
        ("stores", "at key state tenant"),
        ("tenants", "key last_sequence name"),
        ("webhooks", "events tenant"),
    ];
    let sql = "SELECT t.name || '.' || c.name FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c \
               WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite~_%' ESCAPE '~'";
    let store = open(&TempDir::new().unwrap());
    let there: BTreeSet<String> =
        store.write(|tx| tx.all(sql, (), |row| row.get(0))).await.unwrap().into_iter().collect();
    let sealed = seal::COLUMNS.into_iter().map(|column| format!("{}.{}", column.table, column.name));
    let plain =
        PLAIN.into_iter().flat_map(|(table, names)| names.split(' ').map(move |name| format!("{table}.{name}")));
    let decided: BTreeSet<String> = sealed.chain(plain).collect();
    assert_eq!(there, decided);
}
