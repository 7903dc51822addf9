//! What the library may rely on: what its own stores do, and that no tenant sees another's.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{TimeDelta, Utc};
use proptest::prelude::*;
use tempfile::TempDir;
use whatsapp_rust::{
    async_trait,
    bytes::Bytes,
    store::Backend,
    wacore::{
        appstate::{hash::HashState, processor::AppStateMutationMAC},
        libsignal::{
            protocol::{
                SenderKeyRecord, SenderKeyStore, SignalProtocolError, create_sender_key_distribution_message,
                group_encrypt,
            },
            store::sender_key_name::SenderKeyName,
        },
        store::{
            InMemoryBackend, SignalStoreCache,
            device::{CachedNoiseCert, CachedServerCertChain},
            error::StoreError as LibraryError,
            traits::*,
        },
    },
};

use crate::{
    model::tenant::TenantId,
    signal::owner::Owner,
    store::{
        Store,
        devices::{Devices, Record, RecordChange},
        error::StoreError,
        key_value,
        referred::References,
        rules::Rules,
        sqlite::SqliteStore,
    },
    util::{clock::Clock, seal::Seal},
};

/// Nothing was ever lost, or everything was.
struct Always(bool);

#[async_trait]
impl Owner for Always {
    async fn recall(&self, _: [String; 3]) -> bool {
        self.0
    }

    async fn linking(&self) {}

    fn damaged(&self, why: &str) {
        assert!(!why.is_empty());
    }
}

/// With a key, since most else runs without one.
fn open(folder: &TempDir) -> Arc<SqliteStore> {
    open_with(folder, Seal::with_key("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap())
}

fn open_with(folder: &TempDir, seal: Seal) -> Arc<SqliteStore> {
    let rules = Rules { keep_bodies: false, webhook_for_all: false };
    Arc::new(SqliteStore::open(&folder.path().join("service.db"), rules, seal, Clock::of_test()).unwrap())
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

async fn device(store: &Arc<SqliteStore>, name: &str) -> Arc<dyn Backend> {
    opened(store, name, false).await.unwrap()
}

async fn opened(store: &Arc<SqliteStore>, name: &str, lost: bool) -> Result<Arc<dyn Backend>, StoreError> {
    let (lease, store) = (store.held(&tenant(name)), store.clone() as Arc<dyn Store>);
    crate::signal::open(&store, &lease, Arc::new(Always(lost))).await
}

async fn count(store: &SqliteStore, sql: &'static str) -> i64 {
    store.read(move |connection| connection.query_row(sql, (), |row| row.get(0))).await.unwrap()
}

fn secret(id: &str, byte: u8, expires_at: i64, message_ts: i64) -> MsgSecretEntry {
    MsgSecretEntry {
        chat: "c".into(),
        sender: "s".into(),
        msg_id: id.into(),
        secret: [byte; 32],
        expires_at,
        message_ts,
    }
}

#[tokio::test]
async fn credentials_come_back_as_they_were() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let acme = device(&store, "acme").await;
    assert!(!acme.exists().await.unwrap() && acme.load().await.unwrap().is_none());
    acme.create().await.unwrap();
    let mut saved = acme.load().await.unwrap().expect("a device");
    let certificate = CachedNoiseCert { key: [7; 32], not_before: 1, not_after: i64::MAX };
    saved.pn = Some("5511999999999:3@s.whatsapp.net".parse().unwrap());
    saved.lid = Some("100000000000001:3@lid".parse().unwrap());
    saved.push_name = "Ana \u{1f600}".into();
    saved.next_pre_key_id = 813;
    saved.first_unupload_pre_key_id = 1;
    saved.login_counter = 7;
    saved.server_has_prekeys = true;
    saved.nct_salt = Some(vec![0, 255]);
    saved.server_cert_chain = Some(CachedServerCertChain { intermediate: certificate.clone(), leaf: certificate });
    acme.save(&saved).await.unwrap();
    acme.create().await.unwrap();
    drop((acme, store));
    let store = open(&folder);
    let loaded = device(&store, "acme").await.load().await.unwrap().expect("a device");
    assert_eq!(serde_json::to_value(&loaded).unwrap(), serde_json::to_value(&saved).unwrap());
    assert_eq!(loaded.device_props, saved.device_props, "also what is the same for all");
    assert!(!device(&store, "other").await.exists().await.unwrap());
}

#[tokio::test]
async fn a_one_time_key_that_was_used_does_not_come_back() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let acme = device(&store, "acme").await;
    let keys: Vec<_> = (1..=300).map(|id| (id, Bytes::from(vec![id as u8]))).collect();
    acme.store_prekeys_batch(&keys, false).await.unwrap();
    acme.remove_prekey(2).await.unwrap();
    acme.mark_prekeys_uploaded(&[1, 2, 3]).await.unwrap();
    let loaded = acme.load_prekeys_batch(&[1, 2, 3, 999]).await.unwrap();
    assert_eq!(loaded, [(1, Bytes::from_static(&[1])), (3, Bytes::from_static(&[3]))]);
    assert_eq!(acme.get_max_prekey_id().await.unwrap(), 300, "by number, not by its digits");
    assert_eq!(device(&store, "other").await.get_max_prekey_id().await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_known_of_a_secret_is_only_known_for_longer() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let acme = device(&store, "acme").await;
    let now = Utc::now().timestamp();
    acme.put_msg_secrets(vec![secret("1", 1, now + 90, 5), secret("2", 1, now - 10, 5), secret("3", 1, 0, 5)])
        .await
        .unwrap();
    acme.put_msg_secrets(vec![secret("1", 2, now + 30, 0), secret("2", 2, now - 20, 9), secret("3", 2, now - 10, 1)])
        .await
        .unwrap();
    assert_eq!(acme.get_msg_secret_with_ts("c", "s", "1").await.unwrap(), Some((vec![2; 32], 5)));
    assert_eq!(acme.get_msg_secret_with_ts("c", "s", "2").await.unwrap(), Some((vec![2; 32], 9)));
    assert!(!store.forget_expired(Utc::now()).await.unwrap(), "there is no more");
    assert!(acme.get_msg_secret("c", "s", "1").await.unwrap().is_some());
    assert!(acme.get_msg_secret("c", "s", "2").await.unwrap().is_none(), "its time was over");
    assert!(acme.get_msg_secret("c", "s", "3").await.unwrap().is_some(), "once for ever, always for ever");
    store.forget_expired(Utc::now() + TimeDelta::seconds(60)).await.unwrap();
    assert!(acme.get_msg_secret("c", "s", "1").await.unwrap().is_some());
}

#[tokio::test]
async fn texts_are_kept_for_a_week_and_forgotten_for_all_tenants() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let (acme, other) = (device(&store, "acme").await, device(&store, "other").await);
    for n in 0..600 {
        acme.store_sent_message("chat@g.us", &n.to_string(), b"text").await.unwrap();
    }
    other.store_sent_message("chat@g.us", "1", b"theirs").await.unwrap();
    other.store_pending_inbound("chat", "sender", "1", b"theirs").await.unwrap();
    let days = |days| Utc::now() + TimeDelta::days(days);
    assert!(!store.forget_expired(days(6)).await.unwrap());
    for _ in 0..2 {
        let taken = acme.take_sent_message("chat@g.us", "5").await.unwrap();
        assert_eq!(taken.as_deref(), Some(&b"text"[..]), "the library puts it back; a kill in between costs nothing");
    }
    acme.store_sent_message("1@lid", "5", b"text").await.unwrap();
    assert!(acme.take_sent_message("1@lid", "5").await.unwrap().is_none(), "the session answers by itself");
    let sent = store.as_sent(&tenant("acme"), vec!["1@lid".into()], "5").await.unwrap();
    assert_eq!(sent.as_deref(), Some(&b"text"[..]));
    assert!(store.forget_expired(days(8)).await.unwrap(), "500 at a time");
    assert!(!store.forget_expired(days(8)).await.unwrap());
    assert_eq!(count(&store, "SELECT count(*) FROM state WHERE expires_at IS NOT NULL").await, 0);
    assert!(other.get_pending_inbound("chat", "sender", "1").await.unwrap().is_none());
}

#[tokio::test]
async fn a_message_that_was_lost_is_not_taken_for_known() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let acme = opened(&store, "acme", true).await.unwrap();
    acme.store_pending_inbound("chat", "sender", "waits", b"text").await.unwrap();
    assert!(acme.get_pending_inbound("chat", "sender", "waits").await.unwrap().is_some());
    assert!(acme.get_pending_inbound("chat", "sender", "lost").await.is_err(), "it is not acknowledged");
}

#[tokio::test]
async fn what_was_put_aside_is_kept_and_not_written_any_more() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    let old = device(&store, "acme").await;
    old.create().await.unwrap();
    store.change_record(&store.held(&acme), vec![RecordChange::Linked(None)]).await.unwrap();
    store.quarantine(&store.held(&acme)).await.unwrap();
    assert_eq!(store.recorded(&acme).await.unwrap(), Record::default());
    let new = device(&store, "acme").await;
    assert!(!new.exists().await.unwrap(), "it begins anew");
    new.put_session("a@s", b"new").await.unwrap();
    // The client of the old link may still be about to end.
    let late = old.put_session("a@s", b"late").await;
    assert!(matches!(late, Err(LibraryError::Database(_))), "{late:?}");
    assert_eq!(new.get_session("a@s").await.unwrap().unwrap(), b"new"[..]);
    store.delete_device(&store.held(&acme)).await.unwrap();
    assert!(new.put_session("a@s", b"late").await.is_err());
    assert_eq!(count(&store, "SELECT count(*) FROM stores WHERE state = 'quarantined'").await, 1);
    assert_eq!(count(&store, "SELECT count(*) FROM state").await, 1, "the old credentials");
    let next = device(&store, "acme").await;
    next.create().await.unwrap();
    assert_eq!(count(&store, "SELECT max(key) FROM stores").await, 3, "keys are not used again");
}

#[tokio::test]
async fn a_write_is_done_also_if_nobody_waits_for_it() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let acme = device(&store, "acme").await;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let busy = store.write(move |_| {
        let _ = wait.recv();
        Ok(())
    });
    let impatient = tokio::time::timeout(std::time::Duration::from_millis(1), acme.put_session("a@s", b"ratchet"));
    assert!(impatient.await.is_err(), "the writer was busy");
    go.send(()).unwrap();
    busy.await.unwrap();
    store.write(|_| Ok(())).await.unwrap();
    assert_eq!(acme.get_session("a@s").await.unwrap().unwrap(), b"ratchet"[..]);
}

#[tokio::test]
async fn damage_of_one_tenant_is_told_and_leaves_the_others_alone() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let paired = Record { paired: true, phone: Some("5511999999999".into()), ..Record::default() };
    for name in ["record", "device", "lost", "healthy"] {
        let device = device(&store, name).await;
        device.create().await.unwrap();
        let linked = device.load().await.unwrap().unwrap();
        let pn = Some("5511999999999:3@s.whatsapp.net".parse().unwrap());
        device.save(&whatsapp_rust::wacore::store::Device { pn, ..linked }).await.unwrap();
        store
            .change_record(&store.held(&tenant(name)), vec![RecordChange::Linked(paired.phone.clone())])
            .await
            .unwrap();
    }
    store
        .write(|tx| {
            tx.execute("UPDATE stores SET record = x'7b' WHERE key = 1", ())?;
            tx.execute("UPDATE state SET value = x'7b7d' WHERE store = 2", ())?;
            tx.execute("DELETE FROM state WHERE store = 3", ())
        })
        .await
        .unwrap();
    let linked: BTreeMap<_, _> = store.linked().await.unwrap().into_iter().collect();
    assert!(matches!(linked[&tenant("record")], Err(StoreError::Damaged(_))));
    assert_eq!(linked[&tenant("healthy")].as_ref().unwrap(), &paired);
    assert_eq!(linked.len(), 4);
    for name in ["record", "device", "lost"] {
        let opened = opened(&store, name, false).await;
        assert!(matches!(opened, Err(StoreError::Damaged(_))), "{name} is not made anew");
    }
    assert!(device(&store, "healthy").await.load().await.unwrap().is_some());
}

#[tokio::test]
async fn a_damaged_page_is_the_trouble_of_those_who_have_something_on_it() {
    let folder = TempDir::new().unwrap();
    let store = open_with(&folder, Seal::NONE);
    for name in ["a", "b", "c"] {
        let keys: Vec<_> = (0..500).map(|id| (id, Bytes::from(format!("{name}{name}{name}{id:0100}")))).collect();
        device(&store, name).await.store_prekeys_batch(&keys, false).await.unwrap();
    }
    store.close().await;
    drop(store);
    let path = folder.path().join("service.db");
    let mut file = std::fs::read(&path).unwrap();
    // A page in the middle of what is b's.
    let mark = format!("bbb{:0100}", 250);
    let at = file.windows(mark.len()).position(|window| window == mark.as_bytes()).expect("b's key in the file");
    let page = at / 2048 * 2048;
    assert_eq!(file[page], 10, "a leaf of the tree");
    file[page..page + 2048].fill(0xa5);
    std::fs::write(&path, file).unwrap();
    let store = open_with(&folder, Seal::NONE);
    let (a, b, c) = (device(&store, "a").await, device(&store, "b").await, device(&store, "c").await);
    assert!(matches!(b.load_prekey(250).await, Err(LibraryError::Serialization(_))), "told as damage");
    let (broken, fine) = tokio::join!(b.store_prekey(250, b"new", false), a.store_prekey(250, b"new", false));
    assert!(broken.is_err(), "what is known to be damaged is not touched");
    fine.unwrap();
    assert_eq!(a.load_prekey(250).await.unwrap().unwrap(), b"new"[..]);
    // Of those who share a transaction with somebody who finds out, some are told to try again; none is told of damage.
    let b = device(&store, "b").await;
    let (broken, shared) = tokio::join!(b.store_prekey(250, b"new", false), a.store_prekey(251, b"new", false));
    assert!(matches!(broken, Err(LibraryError::Serialization(_))), "{broken:?}");
    assert!(matches!(shared, Ok(()) | Err(LibraryError::Database(_))), "{shared:?}");
    a.store_prekey(251, b"new", false).await.unwrap();
    assert_eq!(c.load_prekey(250).await.unwrap().unwrap(), format!("ccc{:0100}", 250).into_bytes());
    assert!(store.is_healthy().await);
    // A person can still begin anew.
    store.delete_device(&store.held(&tenant("b"))).await.unwrap();
    device(&store, "b").await.store_prekey(250, b"new", false).await.unwrap();
}

#[test]
fn names_are_unambiguous() {
    let all = [&["a", "bc"][..], &["ab", "c"], &["abc"], &["", "abc"], &["a", "b", "c"]].map(key_value::name);
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
    assert!(key_value::name(&["ab", "c"]).starts_with(&key_value::prefix(&["ab"])));
    assert!(!key_value::name(&["abc", "d"]).starts_with(&key_value::prefix(&["ab"])));
}

/// The library's ciphers, with its cache before our store.
struct Ciphers<'a> {
    cache: &'a SignalStoreCache,
    backend: &'a dyn Backend,
}

#[async_trait]
impl SenderKeyStore for Ciphers<'_> {
    async fn store_sender_key(
        &mut self,
        name: &SenderKeyName,
        record: SenderKeyRecord,
    ) -> Result<(), SignalProtocolError> {
        self.cache.put_sender_key(name, record).await;
        Ok(())
    }

    async fn load_sender_key(&self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>, SignalProtocolError> {
        let record = self.cache.get_sender_key(name, self.backend).await.expect("the store answers");
        Ok(record.map(|record| (*record).clone()))
    }
}

#[tokio::test]
async fn no_counter_is_used_twice_whenever_the_process_is_killed() {
    let name = SenderKeyName::from_parts("120363000000000001@g.us", "5511999999999@s.whatsapp.net:0");
    let mut folder = TempDir::new().unwrap();
    let mut rng = rand::make_rng::<rand::rngs::StdRng>();
    let mut published = std::collections::BTreeSet::new();
    // As many before a kill as it takes to come to the end of what the library has reserved, and not so many.
    for messages in [1, 3, 63, 64, 65, 2, 130] {
        let store = open(&folder);
        let (acme, cache) = (device(&store, "acme").await, SignalStoreCache::new());
        let mut ciphers = Ciphers { cache: &cache, backend: acme.as_ref() };
        create_sender_key_distribution_message(&name, &mut ciphers, &mut rng).await.unwrap();
        for _ in 0..messages {
            let message = group_encrypt(&mut ciphers, &name, b"text", &mut rng).await.unwrap();
            if cache.needs_pre_wire_flush().await {
                cache.flush(acme.as_ref()).await.unwrap();
            }
            // Now it leaves.
            assert!(published.insert((message.chain_id(), message.iteration())), "used twice: {}", message.iteration());
        }
        // A copy of the files as they are now is what a kill leaves.
        let killed = TempDir::new().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, killed.path().join(path.file_name().unwrap())).unwrap();
        }
        folder = killed;
    }
    let chains: std::collections::BTreeSet<_> = published.iter().map(|(chain, _)| chain).collect();
    assert_eq!(chains.len(), 1, "it went on with the same chain");
}

/// One call of the library's.
#[derive(Clone, Debug)]
enum Call {
    PutIdentities(Vec<u8>),
    DeleteIdentity(u8),
    PutSessions(Vec<(u8, Vec<u8>)>),
    DeleteSession(u8),
    PutSenderKeys(Vec<(u8, Vec<u8>)>),
    DeleteSenderKey(u8),
    StorePreKeys(Vec<u32>),
    RemovePreKey(u32),
    StoreSignedPreKey(u32),
    RemoveSignedPreKey(u32),
    SetSyncKey(u8),
    SetVersion(u8, u64),
    PutMacs(u8, Vec<u8>),
    DeleteMacs(u8, Vec<u8>),
    ClearMacs(u8),
    SetSenderKeyStatus(u8, Vec<(u8, bool)>),
    ClearSenderKeyDevices(u8),
    DeleteSenderKeyDeviceRows(Vec<u8>),
    ClearAllSenderKeyDevices,
    PutMapping(u8),
    SaveBaseKey(u8, u8),
    DeleteBaseKey(u8),
    UpdateDevices(Vec<(u8, i64)>),
    DeleteDevices(u8),
    PutGroup(u8, Vec<u8>),
    DeleteGroup(u8),
    PutTcToken(u8, u8, Option<u8>),
    TouchTcToken(u8, u8),
    ReceiveTcToken(u8, u8),
    DeleteTcToken(u8),
    ExpireTcTokens(u8, u8),
    StoreSent(u8, Vec<u8>),
    TakeSent(u8),
    StorePending(Vec<u8>),
    DeletePending(Vec<u8>),
    PutSecrets(Vec<(u8, u8, u8)>),
}

/// Names that are each other's beginnings, and hold what separates parts elsewhere.
fn address(n: u8) -> String {
    ["1@s", "1:2@s", "11@s", "11:1@s", "1\0@s", "é@s"][usize::from(n % 6)].into()
}

fn group(n: u8) -> String {
    ["g", "gg", "g\0", ""][usize::from(n % 4)].into()
}

fn call() -> impl Strategy<Value = Call> {
    use Call::*;
    let (n, ns) = (any::<u8>(), || prop::collection::vec(any::<u8>(), 0..4));
    let values = || prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..9)), 0..4);
    let id = || prop_oneof![0..4u32, Just(255), Just(256), Just(0x00ff_ffff)];
    prop_oneof![
        prop_oneof![
            ns().prop_map(PutIdentities),
            n.prop_map(DeleteIdentity),
            values().prop_map(PutSessions),
            n.prop_map(DeleteSession),
            values().prop_map(PutSenderKeys),
            n.prop_map(DeleteSenderKey),
            prop::collection::vec(id(), 0..4).prop_map(StorePreKeys),
            id().prop_map(RemovePreKey),
            id().prop_map(StoreSignedPreKey),
            id().prop_map(RemoveSignedPreKey),
        ],
        prop_oneof![
            n.prop_map(SetSyncKey),
            (n, any::<u64>()).prop_map(|(n, version)| SetVersion(n, version)),
            (n, ns()).prop_map(|(n, macs)| PutMacs(n, macs)),
            (n, ns()).prop_map(|(n, macs)| DeleteMacs(n, macs)),
            n.prop_map(ClearMacs),
            (n, prop::collection::vec(any::<(u8, bool)>(), 0..4)).prop_map(|(n, all)| SetSenderKeyStatus(n, all)),
            n.prop_map(ClearSenderKeyDevices),
            ns().prop_map(DeleteSenderKeyDeviceRows),
            Just(ClearAllSenderKeyDevices),
            n.prop_map(PutMapping),
        ],
        prop_oneof![
            any::<(u8, u8)>().prop_map(|(a, b)| SaveBaseKey(a, b)),
            n.prop_map(DeleteBaseKey),
            prop::collection::vec(any::<(u8, i64)>(), 0..3).prop_map(UpdateDevices),
            n.prop_map(DeleteDevices),
            (n, ns()).prop_map(|(n, blob)| PutGroup(n, blob)),
            n.prop_map(DeleteGroup),
            any::<(u8, u8, Option<u8>)>().prop_map(|(a, b, c)| PutTcToken(a, b, c)),
            any::<(u8, u8)>().prop_map(|(a, b)| TouchTcToken(a, b)),
            any::<(u8, u8)>().prop_map(|(a, b)| ReceiveTcToken(a, b)),
        ],
        prop_oneof![
            n.prop_map(DeleteTcToken),
            any::<(u8, u8)>().prop_map(|(a, b)| ExpireTcTokens(a, b)),
            (n, ns()).prop_map(|(n, payload)| StoreSent(n, payload)),
            n.prop_map(TakeSent),
            ns().prop_map(StorePending),
            ns().prop_map(DeletePending),
            prop::collection::vec(any::<(u8, u8, u8)>(), 0..4).prop_map(PutSecrets),
        ],
    ]
}

/// Makes the call, and says what was answered.
async fn make(backend: &dyn Backend, call: &Call) -> String {
    use Call::*;
    let shared = |values: &[(u8, Vec<u8>)]| -> Vec<(Arc<str>, Bytes)> {
        values.iter().map(|(n, value)| (address(*n).into(), Bytes::from(value.clone()))).collect()
    };
    let index = |n: &u8| [*n % 4; 32];
    match call {
        PutIdentities(ns) => {
            let all: Vec<_> = ns.iter().map(|n| (address(*n).into(), [*n; 32])).collect();
            format!("{:?}", backend.put_identities_batch(&all).await)
        }
        DeleteIdentity(n) => format!("{:?}", backend.delete_identity(&address(*n)).await),
        PutSessions(all) => format!("{:?}", backend.put_sessions_batch(&shared(all)).await),
        DeleteSession(n) => format!("{:?}", backend.delete_session(&address(*n)).await),
        PutSenderKeys(all) => format!("{:?}", backend.put_sender_keys_batch(&shared(all)).await),
        DeleteSenderKey(n) => format!("{:?}", backend.delete_sender_key(&address(*n)).await),
        StorePreKeys(ids) => {
            let all: Vec<_> = ids.iter().map(|id| (*id, Bytes::from(id.to_string()))).collect();
            format!("{:?}", backend.store_prekeys_batch(&all, false).await)
        }
        RemovePreKey(id) => format!("{:?}", backend.remove_prekey(*id).await),
        StoreSignedPreKey(id) => format!("{:?}", backend.store_signed_prekey(*id, b"signed").await),
        RemoveSignedPreKey(id) => format!("{:?}", backend.remove_signed_prekey(*id).await),
        SetSyncKey(n) => {
            let key = AppStateSyncKey { key_data: vec![*n; 32], fingerprint: vec![*n], timestamp: -1 };
            format!("{:?}", backend.set_sync_key(&[*n % 3], key).await)
        }
        SetVersion(n, version) => {
            let state = HashState { version: *version, hash: [*n; 128], ..HashState::default() };
            format!("{:?}", backend.set_version(&group(*n), state).await)
        }
        PutMacs(n, macs) => {
            let mac = |n: &u8| AppStateMutationMAC { index_mac: index(n).into(), value_mac: vec![*n] };
            let macs: Vec<_> = macs.iter().map(mac).collect();
            format!("{:?}", backend.put_mutation_macs(&group(*n), 1, &macs).await)
        }
        DeleteMacs(n, macs) => {
            let macs: Vec<_> = macs.iter().map(|n| index(n).to_vec()).collect();
            format!("{:?}", backend.delete_mutation_macs(&group(*n), &macs).await)
        }
        ClearMacs(n) => format!("{:?}", backend.clear_mutation_macs(&group(*n)).await),
        SetSenderKeyStatus(n, all) => {
            let all: Vec<_> = all.iter().map(|(n, has_key)| (address(*n), *has_key)).collect();
            let all: Vec<_> = all.iter().map(|(device, has_key)| (device.as_str(), *has_key)).collect();
            format!("{:?}", backend.set_sender_key_status(&group(*n), &all).await)
        }
        ClearSenderKeyDevices(n) => format!("{:?}", backend.clear_sender_key_devices(&group(*n)).await),
        DeleteSenderKeyDeviceRows(ns) => {
            let all: Vec<_> = ns.iter().map(|n| address(*n)).collect();
            let all: Vec<_> = all.iter().map(String::as_str).collect();
            format!("{:?}", backend.delete_sender_key_device_rows(&all).await)
        }
        ClearAllSenderKeyDevices => format!("{:?}", backend.clear_all_sender_key_devices().await),
        PutMapping(n) => {
            // Each number has one LID here: what two LIDs of one number mean has a test of its own.
            let n = n % 5;
            let entry = LidPnMappingEntry {
                lid: format!("lid{n}"),
                phone_number: format!("55{n}"),
                created_at: 1,
                updated_at: i64::from(n),
                learning_source: "usync".into(),
            };
            format!("{:?}", backend.put_lid_mappings(&[entry]).await)
        }
        SaveBaseKey(n, key) => format!("{:?}", backend.save_base_key(&address(*n), &group(*n), &[*key]).await),
        DeleteBaseKey(n) => format!("{:?}", backend.delete_base_key(&address(*n), &group(*n)).await),
        UpdateDevices(all) => {
            let list = |(n, at): &(u8, i64)| DeviceListRecord {
                user: address(*n),
                devices: vec![DeviceInfo::new(0, None), DeviceInfo::new(u32::from(*n), Some(3)).with_hosting(true)],
                timestamp: *at,
                phash: (n % 2 == 0).then(|| "2:hash".into()),
                raw_id: (n % 3 == 0).then_some(u32::MAX),
            };
            format!("{:?}", backend.update_device_lists(all.iter().map(list).collect()).await)
        }
        DeleteDevices(n) => format!("{:?}", backend.delete_devices(&address(*n)).await),
        PutGroup(n, blob) => format!("{:?}", backend.put_group_metadata(&group(*n), blob).await),
        DeleteGroup(n) => format!("{:?}", backend.delete_group_metadata(&group(*n)).await),
        PutTcToken(n, at, sender) => {
            let token = TcTokenEntry {
                token: vec![*n; usize::from(n % 2)],
                token_timestamp: i64::from(*at),
                sender_timestamp: sender.map(i64::from),
            };
            format!("{:?}", backend.put_tc_token(&address(*n), &token).await)
        }
        TouchTcToken(n, at) => {
            format!("{:?}", backend.touch_tc_token_sender_timestamp(&address(*n), i64::from(*at)).await)
        }
        ReceiveTcToken(n, at) => {
            format!("{:?}", backend.store_received_tc_token(&address(*n), &[*at], i64::from(*at)).await)
        }
        DeleteTcToken(n) => format!("{:?}", backend.delete_tc_token(&address(*n)).await),
        ExpireTcTokens(a, b) => format!("{:?}", backend.delete_expired_tc_tokens(i64::from(*a), i64::from(*b)).await),
        StoreSent(n, payload) => {
            format!("{:?}", backend.store_sent_message(&group(*n), &address(*n), payload).await)
        }
        TakeSent(n) => {
            let taken = backend.take_sent_message(&group(*n), &address(*n)).await;
            // As the library does.
            if let Ok(Some(payload)) = &taken {
                backend.store_sent_message(&group(*n), &address(*n), payload).await.unwrap();
            }
            format!("{taken:?}")
        }
        StorePending(ns) => {
            let all: Vec<_> = ns.iter().map(|n| (group(*n), address(*n))).collect();
            let row = |(chat, sender): &'_ (String, String)| (chat.clone(), sender.clone());
            let all: Vec<_> = all.iter().map(row).collect();
            let rows: Vec<_> = all
                .iter()
                .map(|(chat, sender)| PendingInboundRow { chat, sender, id: "id", message: sender.as_bytes() })
                .collect();
            format!("{:?}", backend.store_pending_inbound_batch(&rows).await)
        }
        DeletePending(ns) => {
            let all: Vec<_> = ns.iter().map(|n| (group(*n), address(*n))).collect();
            let keys: Vec<_> = all.iter().map(|(chat, sender)| PendingInboundKey { chat, sender, id: "id" }).collect();
            format!("{:?}", backend.delete_pending_inbound_batch(&keys).await)
        }
        PutSecrets(all) => {
            let entries = all.iter().map(|(n, byte, at)| MsgSecretEntry {
                chat: group(*n).into(),
                sender: address(*n).into(),
                ..secret("id", *byte, i64::from(*at), i64::from(*at))
            });
            format!("{:?}", backend.put_msg_secrets(entries.collect()).await)
        }
    }
}

/// Everything that can be asked for, in an order of its own.
async fn all_answers(backend: &dyn Backend) -> Vec<String> {
    let mut answers = Vec::new();
    macro_rules! ask {
        ($($answer:expr),* $(,)?) => { $(answers.push(format!("{}: {:?}", stringify!($answer), $answer));)* };
    }
    fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
        all.sort();
        all
    }
    for address in (0..6).map(address) {
        ask!(
            backend.load_identity(&address).await,
            backend.get_session(&address).await,
            backend.has_session(&address).await,
            backend.get_sender_key(&address).await,
            backend.get_devices(&address).await,
            backend.get_tc_token(&address).await,
            backend.get_all_tc_token_jids().await.map(sorted),
        );
        for group in (0..4).map(group) {
            ask!(
                backend.has_same_base_key(&address, &group, &[1]).await,
                backend.get_pending_inbound(&group, &address, "id").await,
                backend.get_msg_secret_with_ts(&group, &address, "id").await,
            );
        }
    }
    for user in ["1", "11", "1\0", "é", "", "s"] {
        ask!(backend.has_signal_state_for_user(user).await);
    }
    for group in (0..4).map(group) {
        let indices = [[0; 32], [1; 32], [2; 32], [3; 32]];
        let macs =
            backend.get_mutation_macs(&group, &indices).await.map(|macs| macs.into_iter().collect::<BTreeMap<_, _>>());
        ask!(
            macs,
            backend.get_mutation_mac(&group, &[1; 32]).await,
            backend.get_sender_key_devices(&group).await.map(sorted),
            backend.get_group_metadata(&group).await,
        );
        let version = backend.get_version(&group).await.unwrap();
        ask!(version.version, version.hash);
    }
    let ids = [0, 1, 2, 3, 255, 256, 0x00ff_ffff];
    ask!(
        backend.load_prekeys_batch(&ids).await,
        backend.load_prekey(255).await,
        backend.get_max_prekey_id().await,
        backend.load_all_signed_prekeys().await.map(sorted),
        backend.load_signed_prekey(256).await,
        backend.get_latest_sync_key_id().await,
    );
    for id in 0..3 {
        ask!(backend.get_sync_key(&[id]).await);
    }
    for n in 0..5 {
        ask!(backend.get_lid_mapping(&format!("lid{n}")).await, backend.get_pn_mapping(&format!("55{n}")).await);
    }
    let mut mappings = backend.get_all_lid_mappings().await.unwrap();
    mappings.sort_by(|a, b| a.lid.cmp(&b.lid));
    ask!(mappings);
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The library's own store in memory is the model. Each tenant has one, so that whatever passes from one tenant to
    /// another shows too.
    #[test]
    fn it_answers_as_the_library_s_own_store_does(calls in prop::collection::vec((0..3usize, call()), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = TempDir::new().unwrap();
            let store = open(&folder);
            let mut tenants = Vec::new();
            for name in ["a", "aa", "b"] {
                tenants.push((device(&store, name).await, InMemoryBackend::new()));
            }
            for (tenant, call) in &calls {
                let (ours, model) = &tenants[*tenant];
                assert_eq!(make(ours.as_ref(), call).await, make(model, call).await, "{call:?}");
            }
            for (ours, model) in &tenants {
                assert_eq!(all_answers(ours.as_ref()).await, all_answers(model).await);
            }
            store.close().await;
        });
    }
}

#[tokio::test]
async fn a_number_leads_to_the_lid_that_was_learned_last() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let acme = device(&store, "acme").await;
    let entry = |lid: &str, phone: &str, at| LidPnMappingEntry {
        lid: lid.into(),
        phone_number: phone.into(),
        created_at: at,
        updated_at: at,
        learning_source: "usync".into(),
    };
    let lid = async |phone: &str| acme.get_pn_mapping(phone).await.unwrap().map(|entry| entry.lid);
    acme.put_lid_mappings(&[entry("A", "1", 10), entry("B", "1", 30), entry("C", "1", 20)]).await.unwrap();
    assert_eq!(lid("1").await.as_deref(), Some("B"));
    acme.put_lid_mapping(&entry("B", "2", 40)).await.unwrap();
    assert_eq!((lid("1").await.as_deref(), lid("2").await.as_deref()), (Some("C"), Some("B")));
    let b = acme.get_lid_mapping("B").await.unwrap().unwrap();
    assert_eq!((b.created_at, b.updated_at), (30, 40), "when it was first learned stays");
}
