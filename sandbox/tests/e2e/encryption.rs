//! Encryption at rest: nothing in the files without the key, no start with a wrong one, and another key at any time.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Mutex,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    harness::{ANA, BRUNO, Program, World, eventually},
    trust::SERVICE,
};

const SENT: &str = "a text that was sent, and is kept";
const QUEUED: &str = "a text that waits to be sent";
const RECEIVED: &str = "a text that came in";
const TOKEN: &str = "token-in-the-address";
/// What stands before a device's key.
const CREDENTIALS: &str = "\"noise_key\"";
const SIGNING: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

fn key(byte: u8) -> String {
    BASE64_STANDARD.encode([byte; 32])
}

/// A service with this key that has something of everything which nobody is to find.
async fn filled(key: Option<&str>) -> World {
    let key = key.map(|key| ("ENCRYPTION_KEY", key));
    let env: Vec<_> = [("KEEP_BODIES", "true"), ("ALLOW_PRIVATE_TARGETS", "true")].into_iter().chain(key).collect();
    let world = World::with(Default::default(), &env).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let webhook = json!({"url": format!("http://127.0.0.1:1/{TOKEN}"), "secret": SIGNING});
    assert_eq!(acme.call(Method::PUT, "/webhook", Some(webhook)).await.0, 200);
    acme.deliver(BRUNO, SENT).await;
    world.write(BRUNO, ANA, RECEIVED).await;
    acme.until_told("message.received", |told| !told.is_empty()).await;
    world.cut_off("acme", ANA).await;
    acme.queue(BRUNO, QUEUED).await;
    world
}

/// Everything that was filled in is there and works; what waited is sent.
async fn check(world: &World) {
    world.clear_faults().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    world.until_shown(BRUNO, QUEUED).await;
    let messages = acme.get("/messages").await.to_string();
    assert!(messages.contains(SENT) && messages.contains(QUEUED), "{messages}");
    assert_eq!(acme.told("message.received").await[0]["text"], RECEIVED);
    assert!(acme.get("/webhook").await["url"].as_str().unwrap().ends_with(TOKEN));
    acme.deliver(BRUNO, "and it still sends").await;
    assert_eq!(world.shown_on(BRUNO).await.iter().filter(|message| message["text"] == QUEUED).count(), 1);
}

/// Which of these stand anywhere in the data directory.
fn found(data: &Path) -> Vec<&'static str> {
    let (mut folders, mut bytes) = (vec![data.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => bytes.extend(fs::read(path).unwrap_or_default()),
            }
        }
    }
    let is_there = |secret: &&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    [SENT, QUEUED, RECEIVED, TOKEN, SIGNING, CREDENTIALS].into_iter().filter(is_there).collect()
}

/// `whatsapp-service rekey` on this directory.
fn rekey(data: &Path, old: Option<&str>, new: Option<&str>) -> Command {
    let mut command = Command::new(&*SERVICE);
    command.arg("rekey").env("DATA_DIR", data).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(old) = old {
        command.env("ENCRYPTION_KEY", old);
    }
    match new {
        Some(new) => command.env("NEW_ENCRYPTION_KEY", new),
        None => command.arg("--decrypt"),
    };
    command
}

fn succeeds(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn fails(mut command: Command, mention: &str) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success() && complaint.contains(mention), "{complaint}");
}

/// A start of the service with this key.
fn start(data: &Path, key: Option<&str>) -> Command {
    let env: Vec<_> = key.map(|key| ("ENCRYPTION_KEY", key)).into_iter().collect();
    Program::sandbox("ws://127.0.0.1:1/ws/chat", &env).command(data)
}

/// The bytes of the database.
fn bytes(data: &Path) -> [Vec<u8>; 2] {
    ["service.db", "service.db-wal"].map(|name| fs::read(data.join(name)).unwrap_or_default())
}

#[tokio::test]
async fn with_a_key_all_works_and_nothing_of_it_can_be_found_in_the_files() {
    let key = key(1);
    for key in [None, Some(key.as_str())] {
        let mut world = filled(key).await;
        let everything = key.is_none();
        assert_eq!(found(world.service.data.path()).len(), if everything { 6 } else { 0 }, "while it runs");
        world.service.kill_and_restart().await;
        check(&world).await;
        assert_eq!(world.service.terminate().await.code(), Some(0));
        let found = found(world.service.data.path());
        assert_eq!(found.len(), if everything { 6 } else { 0 }, "after it: {found:?}");
    }
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_refused_and_nothing_is_touched() {
    let (right, wrong) = (key(1), key(2));
    let mut world = filled(Some(&right)).await;
    // After a kill there is more in the log than in the database.
    world.service.signal("-KILL");
    world.service.ended().await;
    let data = world.service.data.path();
    let before = bytes(data);
    fails(start(data, None), "the database is encrypted, and no key is set");
    fails(start(data, Some(&wrong)), "encrypted with another key");
    fails(start(data, Some("not a key")), "ENCRYPTION_KEY is not 32 bytes in base64");
    fails(rekey(data, None, Some(&wrong)), "no key is set");
    fails(rekey(data, Some(&wrong), Some(&right)), "another key");
    fails(rekey(data, Some(&wrong), None), "another key");
    let mut both = rekey(data, Some(&right), Some(&wrong));
    both.arg("--decrypt");
    fails(both, "either");
    assert!(bytes(data) == before, "not a byte is another");
    world.service.restart().await;
    check(&world).await;
    fails(rekey(world.service.data.path(), Some(&right), Some(&wrong)), "another process uses the data directory");

    let mut plain = filled(None).await;
    assert_eq!(plain.service.terminate().await.code(), Some(0));
    let before = bytes(plain.service.data.path());
    fails(start(plain.service.data.path(), Some(&right)), "whatsapp-service rekey");
    assert!(bytes(plain.service.data.path()) == before, "not a byte is another");
    let nowhere = TempDir::new().unwrap();
    fails(rekey(nowhere.path(), None, Some(&right)), "service.db");
    assert_eq!(fs::read_dir(nowhere.path()).unwrap().count(), 0, "nothing is made where nothing was");
}

#[tokio::test]
async fn another_key_can_be_given_and_taken_away() {
    let mut world = filled(None).await;
    let (one, two) = (key(1), key(2));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("key");
    let mut now: Option<&str> = None;
    for next in [Some(one.as_str()), Some(&two), None] {
        assert_eq!(world.service.terminate().await.code(), Some(0));
        let said = succeeds(rekey(world.service.data.path(), now, next));
        assert!(said.contains("values"), "{said}");
        assert_eq!(found(world.service.data.path()).len(), if next.is_none() { 6 } else { 0 }, "right after it");
        now = next;
        // It comes from a file, or from nowhere.
        fs::write(&file, now.unwrap_or_default()).unwrap();
        world.service.set_env("ENCRYPTION_KEY_FILE", now.map_or("", |_| file.to_str().unwrap()));
        world.service.restart().await;
        check(&world).await;
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_rekeying_loses_nothing() {
    let mut world = filled(None).await;
    assert_eq!(world.service.terminate().await.code(), Some(0));
    let data = world.service.data.clone();
    let database = data.path().join("service.db");
    // Large enough to take a moment.
    let connection = Connection::open(&database).unwrap();
    connection
        .execute_batch(
            "INSERT INTO tenants (key, name) VALUES (1000, 'large');
             WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
             INSERT INTO events (tenant, sequence, kind, at, data)
             SELECT 1000, n, 'message.received', unixepoch() * 1000, '{\"text\":\"' || hex(randomblob(400)) || '\"}' FROM n;",
        )
        .unwrap();
    connection.close().unwrap();
    let size = fs::metadata(&database).unwrap().len();
    let new = data.path().join("service.db.rekeyed");
    let key = key(1);
    for part in [0, 1, 2, 3] {
        let rekeying = Mutex::new(rekey(data.path(), None, Some(&key)).spawn().unwrap());
        eventually("a part of the new file", || async {
            assert!(rekeying.lock().unwrap().try_wait().unwrap().is_none(), "it was done before it could be killed");
            (fs::metadata(&new).is_ok_and(|file| file.len() >= size * part / 4)).then_some(())
        })
        .await;
        rekeying.lock().unwrap().kill().unwrap();
        rekeying.lock().unwrap().wait().unwrap();
        fails(start(data.path(), Some(&key)), "is not encrypted");
    }
    world.service.restart().await;
    assert!(!new.exists(), "what was left of it is gone");
    check(&world).await;
    assert_eq!(world.service.terminate().await.code(), Some(0));
    succeeds(rekey(data.path(), None, Some(&key)));
    world.service.set_env("ENCRYPTION_KEY", &key);
    world.service.restart().await;
    check(&world).await;
    let large = world.service.tenant("large").get("/events?limit=1000&after=19000").await;
    assert_eq!(large["events"].as_array().unwrap().len(), 1000);
}
