//! Data directories of the first version: each tenant had a folder with a database of the library's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use whatsapp_rust::{
    Jid, TokioRuntime,
    bot::Bot,
    http::UreqHttpClient,
    store::Backend,
    transport::TokioWebSocketTransportFactory,
    wacore::types::events::{Event, EventHandler},
};
use whatsapp_rust_sqlite_storage::{SqliteStore, SqliteStoreConfig, Synchronous};
use whatsapp_simulator::{Config, Phone, Simulator};

use crate::harness::{ANA, BRUNO, Log, Program, Service, World, eventually, simulator};

#[tokio::test]
async fn sessions_of_the_first_version_go_on() {
    let (simulator, data) = (simulator(Config::default()).await, Arc::new(TempDir::new().unwrap()));
    for tenant in ["acme", "other", "nameless", "garbage", "truncated"] {
        linked_by_the_first_version(&simulator, &data, tenant).await;
    }
    drop(make_folder(&data, "unfinished", json!({"paired": false})).await);
    let folder = |tenant: &str| folder_of(data.path(), tenant);
    fs::write(folder("nameless").join("tenant.json"), b"{").unwrap();
    fs::write(folder("garbage").join("whatsapp.db"), b"this is not a database, not at all").unwrap();
    for log in ["whatsapp.db-wal", "whatsapp.db-shm"] {
        let _ = fs::remove_file(folder("truncated").join(log));
    }
    fs::File::options().write(true).open(folder("truncated").join("whatsapp.db")).unwrap().set_len(8192).unwrap();
    let damaged = ["nameless", "garbage", "truncated"];
    let before = damaged.map(|tenant| contents(&folder(tenant)));

    let program = Program::sandbox(&simulator.ws_url(), &[]);
    let service = Service::run(program, data.clone(), Log::default()).await;
    let mut world = World { simulator, service };
    for tenant in ["acme", "other"] {
        world.service.tenant(tenant).until_state("ready").await;
        go_on(&world, tenant, "after").await;
    }
    assert_eq!(world.devices(ANA).await.len(), 5, "no device was linked anew");
    for tenant in damaged {
        let failed = world.service.tenant(tenant).status().await;
        assert_eq!((&failed["state"], &failed["reason"]), (&json!("failed"), &json!("storage_failed")), "{failed}");
        let again = world.service.tenant(tenant).open().await;
        assert_eq!(again["reason"], "storage_failed", "asking again does not make it a new tenant");
    }
    assert!(damaged.map(|tenant| contents(&folder(tenant))) == before, "they are left alone");
    assert_eq!(fs::read_dir(data.path().join("tenants")).unwrap().count(), damaged.len());
    let migrated = data.path().join("migrated");
    assert!(fs::read_to_string(migrated.join("README")).unwrap().contains("Never use them again"));
    assert_eq!(fs::read_dir(&migrated).unwrap().count(), 4, "three folders and the note");

    // A kill after the data were taken over and before the folder was moved: nothing newer is overwritten.
    world.service.signal("-KILL");
    world.service.ended().await;
    let name = folder("acme").file_name().unwrap().to_owned();
    fs::rename(migrated.join(&name), folder("acme")).unwrap();
    world.service.restart().await;
    assert!(!folder("acme").exists() && migrated.join(&name).exists());
    world.service.tenant("acme").until_state("ready").await;
    go_on(&world, "acme", "after a kill").await;

    // A person's decision is a deletion and a new link.
    assert_eq!(world.service.tenant("nameless").call(Method::DELETE, "/session", None).await.0, 200);
    assert!(!folder("nameless").exists());
    world.pair("nameless", ANA).await;
}

/// Sends and receives: both sides read what the other has encrypted.
async fn go_on(world: &World, tenant: &str, what: &str) {
    let text = format!("{tenant} {what}");
    world.service.tenant(tenant).deliver(BRUNO, &text).await;
    assert_eq!(world.until_shown(BRUNO, &text).await.len(), 1);
    let id = world.write(BRUNO, ANA, &format!("to {text}")).await;
    let told = |told: &[Value]| told.iter().any(|one| one["id"] == id && one["text"] == format!("to {text}"));
    world.service.tenant(tenant).until_told("message.received", told).await;
}

/// The folder that the first version gave to a tenant.
fn folder_of(data: &Path, tenant: &str) -> PathBuf {
    let digest: String = Sha256::digest(tenant).iter().map(|byte| format!("{byte:02x}")).collect();
    data.join("tenants").join(digest)
}

/// What is in a folder's files, but for what SQLite changes when it only reads.
fn contents(folder: &Path) -> Vec<Vec<u8>> {
    ["tenant.json", "whatsapp.db"].map(|file| fs::read(folder.join(file)).unwrap()).into()
}

/// A folder as the first version made it.
async fn make_folder(data: &TempDir, tenant: &str, mut record: Value) -> SqliteStore {
    let folder = folder_of(data.path(), tenant);
    fs::create_dir_all(&folder).unwrap();
    record["tenant"] = json!(tenant);
    fs::write(folder.join("tenant.json"), record.to_string()).unwrap();
    let config = SqliteStoreConfig { synchronous: Synchronous::Full, ..SqliteStoreConfig::default() };
    SqliteStore::with_config(folder.join("whatsapp.db").to_str().unwrap(), config).await.unwrap()
}

/// Links a tenant and sends a message, as the first version did it.
async fn linked_by_the_first_version(simulator: &Simulator, data: &TempDir, tenant: &str) {
    let store = make_folder(data, tenant, json!({"paired": true, "phone": ANA})).await;
    let (code, shown) = mpsc::channel();
    let bot = Bot::builder()
        .with_backend_arc(Arc::new(store) as Arc<dyn Backend>)
        .with_transport_factory(TokioWebSocketTransportFactory::new().with_url(simulator.ws_url()))
        .with_http_client(UreqHttpClient::new())
        .with_runtime(TokioRuntime)
        .with_version((2, 3000, 1))
        .skip_history_sync()
        .with_event_handler(Codes(code))
        .build()
        .await
        .unwrap();
    let client = bot.client();
    let handle = bot.spawn();
    let code = eventually("a QR code", || async { shown.try_recv().ok() }).await;
    simulator.world().scan_qr(&code, Some(&Phone::parse(ANA).unwrap())).await.unwrap();
    eventually("a login", || async { (client.is_logged_in() && client.pn().is_some()).then_some(()) }).await;
    client.send_text(Jid::pn(BRUNO), "before").await.unwrap();
    handle.shutdown().await;
}

struct Codes(mpsc::Sender<String>);

impl EventHandler for Codes {
    fn handle_event(&self, event: Arc<Event>) {
        if let Event::PairingQrCode(qr) = &*event {
            // Only the first is wanted.
            let _ = self.0.send(qr.code.clone());
        }
    }
}
