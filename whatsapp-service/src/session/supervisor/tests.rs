//! A session that panics, and how often it may fail.

use crate::model::session_state::State;
use crate::model::tenant::TenantId;
use crate::session::Session;
use crate::session::state::Snapshot;
use std::sync::Mutex;
use std::{collections::BTreeMap, sync::LazyLock};

use clap::Parser;

use super::*;
use crate::{Server, cli::Cli, net::trust::Trust};

/// How many more times the task of a tenant's session is to panic: with a client, and without one.
pub(crate) static CLIENTS: Panics = LazyLock::new(Mutex::default);
pub(crate) static RUNS: Panics = LazyLock::new(Mutex::default);

type Panics = LazyLock<Mutex<BTreeMap<TenantId, u32>>>;

pub(crate) fn maybe_panic(panics: &Panics, tenant: &TenantId) {
    let due = lock(panics).get_mut(tenant).filter(|left| **left > 0).map(|left| *left -= 1).is_some();
    assert!(!due, "a test asked for a panic");
}

#[test]
fn the_first_refusal_after_many_lost_connections_is_the_first() {
    let mut run = Run::default();
    let lost: Vec<_> = (0..9).map(|_| run.failed(RetryPolicy::Soon)).collect();
    assert_eq!(lost, (1..=9).collect::<Vec<_>>());
    assert_eq!(
        [RetryPolicy::Slowly, RetryPolicy::Soon, RetryPolicy::Slowly].map(|again| run.failed(again)),
        [1, 11, 2]
    );
}

#[tokio::test]
async fn a_panic_in_one_session_is_reported_and_it_starts_again() {
    let data = tempfile::TempDir::new().unwrap();
    let mut config = Cli::try_parse_from(["test", "--host", "127.0.0.1", "--port", "0"]).unwrap().config;
    config.internal_secret = "nobody knows".into();
    config.data_dir = data.path().into();
    // Nobody listens there.
    config.whatsapp_url = Some("ws://127.0.0.1:1/".into());
    config.whatsapp_version = Some((1, 2, 3));
    let server = Server::bind(&config, Trust::AnyServer { tls_roots: Vec::new() }).await.unwrap();
    let manager = server.manager();
    let [unlucky, calm] = ["unlucky", "calm"].map(|name| name.parse::<TenantId>().unwrap());
    lock(&CLIENTS).insert(unlucky.clone(), 2);
    lock(&RUNS).insert(unlucky.clone(), 1);
    let seen = |session: &Arc<Session>, code: &'static str| {
        let session = session.clone();
        async move {
            let limit = Duration::from_secs(60);
            let has = |snapshot: &Snapshot| snapshot.reason.as_ref().is_some_and(|reason| reason.code == code);
            session.wait_until(limit, has).await;
            let snapshot = session.snapshot();
            assert!(has(&snapshot), "{code} is awaited, and not {:?}", snapshot.reason);
        }
    };
    let (session, _) = manager.open(&unlucky, None, None).await.unwrap();
    seen(&session, "internal_error").await;
    assert_eq!(session.snapshot().state, State::Connecting);
    let (other, _) = manager.open(&calm, None, None).await.unwrap();
    seen(&other, "connection_failed").await;
    seen(&session, "connection_failed").await;
    assert_eq!(manager.panics(), 3);
    manager.shut_down().await;
}
