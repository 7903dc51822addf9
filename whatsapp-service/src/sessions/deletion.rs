//! The end of a session: its device is unlinked at WhatsApp, and what is on the disk is deleted.
//!
//! It is written down before it begins. What was begun goes on by itself until it is done, also after a restart, and is
//! not taken back: a device that is unlinked is of no use any more.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::json;
use tokio::time::{sleep, timeout};
use whatsapp_rust::{Client, wacore::iq::devices::RemoveCompanionDeviceSpec};

use super::{
    Manager,
    outbox::deleted,
    session::{Session, lock, stop},
    state::{Signal, Snapshot, State, Status},
};
use crate::{clock::timestamp, store::StoreError, supervise::supervised, tenant::TenantId};

/// How long the server may take to confirm that a device is unlinked.
const UNLINK_LIMIT: Duration = Duration::from_secs(5);
/// How long a session may take to connect after a restart, to be unlinked.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait before something is deleted again that could not be.
const PAUSE: Duration = Duration::from_secs(1);

/// What a deletion achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// The server confirmed that the device is no longer linked.
    Confirmed,
    /// There was no link to end.
    NotLinked,
    /// The server could not be told: the phone may still list this device.
    NotTold,
}

/// Why a session is not deleted yet.
#[derive(Debug, thiserror::Error)]
pub enum NotDeleted {
    /// Nothing has happened: it can't be written down.
    #[error(transparent)]
    NotBegun(StoreError),
    /// It is unlinked, as far as WhatsApp could be told; the rest is done as soon as the disk allows it.
    #[error("the session is being deleted, and the disk does not allow that yet")]
    Unfinished(StoreError),
}

impl Session {
    /// Unlinks the device at the server, stops, and deletes what is on disk; `None` if that was done before.
    async fn delete(&self) -> Result<Option<Unlinked>, NotDeleted> {
        let mut lifecycle = self.lifecycle.lock().await;
        if lifecycle.ended {
            return Ok(None);
        }
        let unlinked = match lifecycle.unlinked {
            Some(unlinked) => unlinked,
            None => {
                self.note_deletion().await.map_err(NotDeleted::NotBegun)?;
                // What is accepted from now on is given up by the one who accepted it.
                let goes_on = self.gone.swap(true, Ordering::AcqRel);
                let unlinked = self.unlink(goes_on).await;
                *lifecycle.unlinked.insert(unlinked)
            }
        };
        stop(&mut lifecycle).await;
        let store = &self.around.store;
        let erased = async {
            store.give_up_all(&self.tenant, deleted()).await?;
            store.delete_device(&self.tenant).await
        };
        if let Err(error) = erased.await {
            self.apply(Signal::StorageFailed("It is being deleted, and the disk does not allow that yet.".into()));
            return Err(NotDeleted::Unfinished(error));
        }
        lifecycle.ended = true;
        lock(&self.lane).clear();
        self.tell(json!({"state": "deleted", "status": Status::NotFound, "since": timestamp(self.now())}));
        Ok(Some(unlinked))
    }

    /// Writes down that the session is being deleted. One without a link has nothing that a later process could go on
    /// with, and what can't be read is deleted all the same.
    async fn note_deletion(&self) -> Result<(), StoreError> {
        let store = &self.around.store;
        let noted = async {
            if store.recorded(&self.tenant).await?.paired {
                store.change_record(&self.tenant, |record| record.deleting = true).await?;
            }
            Ok(())
        };
        match noted.await {
            Err(StoreError::Damaged(_)) => Ok(()),
            noted => noted,
        }
    }

    /// `goes_on` says that an earlier process, or call, may have unlinked it already.
    async fn unlink(&self, goes_on: bool) -> Unlinked {
        let live = lock(&self.live).clone();
        let on_disk = self.is_recorded_as_paired().await;
        let in_client = live.as_ref().is_some_and(|live| live.client.pn().is_some());
        let linked = on_disk || in_client || self.snapshot.borrow().is_paired();
        match live {
            _ if !linked || self.snapshot.borrow().state == State::LoggedOut => Unlinked::NotLinked,
            _ if goes_on && self.snapshot.borrow().seems_unlinked() => Unlinked::Confirmed,
            Some(live) => self.unlink_at_server(&live.client).await,
            None => Unlinked::NotTold,
        }
    }

    /// Ends the link at the server. The library's own `logout` keeps to itself whether the server heard it.
    async fn unlink_at_server(&self, client: &Arc<Client>) -> Unlinked {
        let Some(jid) = client.pn() else { return Unlinked::NotLinked };
        // What the server said before may have been a mistake.
        let seemed_unlinked = self.snapshot.borrow().seems_unlinked();
        let told = timeout(UNLINK_LIMIT, client.execute(RemoveCompanionDeviceSpec::new(&jid))).await;
        // The server ends the connection of a device that it has just removed, maybe before its answer is read.
        if !matches!(told, Ok(Ok(()))) && !seemed_unlinked {
            self.wait_until(Duration::from_secs(1), Snapshot::seems_unlinked).await;
        }
        let removed = !seemed_unlinked && self.snapshot.borrow().seems_unlinked();
        if matches!(told, Ok(Ok(()))) || removed { Unlinked::Confirmed } else { Unlinked::NotTold }
    }
}

impl Manager {
    /// Unlinks and deletes the tenant's session; `None` where there is none, or no longer. It is done to its end, also if
    /// the caller goes.
    pub async fn delete(self: &Arc<Self>, tenant: &TenantId) -> Result<Option<Unlinked>, NotDeleted> {
        let Some(session) = self.get(tenant) else { return Ok(None) };
        let manager = self.clone();
        let deleting = self.around.sends.spawn(async move {
            let deleted = match AssertUnwindSafe(manager.delete_now(&session)).catch_unwind().await {
                Ok(deleted) => deleted,
                Err(panic) => {
                    // What was begun comes to its end all the same.
                    if session.gone.load(Ordering::Acquire) {
                        manager.go_on_deleting(session);
                    }
                    std::panic::resume_unwind(panic)
                }
            };
            if let Err(NotDeleted::Unfinished(error)) = &deleted {
                tracing::warn!(tenant = %session.tenant, %error, "a session could not be deleted yet");
                manager.go_on_deleting(session);
            }
            deleted
        });
        deleting.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }

    /// Goes on with a deletion that was begun, now or in an earlier process, until it is done.
    pub(super) fn go_on_deleting(self: &Arc<Self>, session: Arc<Session>) {
        session.gone.store(true, Ordering::Release);
        if session.deleting.swap(true, Ordering::AcqRel) {
            return;
        }
        let manager = self.clone();
        self.around.sends.spawn(supervised("deletion", move || {
            let (manager, session) = (manager.clone(), session.clone());
            async move { manager.finish_deletion(&session).await }
        }));
    }

    async fn finish_deletion(&self, session: &Arc<Session>) {
        // To be unlinked it has to be connected. One that was told so already is not.
        let enough = |snapshot: &Snapshot| {
            snapshot.state == State::Ready || snapshot.stops_client() || snapshot.seems_unlinked()
        };
        tokio::select! {
            () = session.wait_until(CONNECT_LIMIT, enough) => {}
            () = self.stopping() => return,
        }
        while self.delete_now(session).await.is_err() {
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = self.stopping() => return,
            }
        }
    }

    async fn delete_now(&self, session: &Arc<Session>) -> Result<Option<Unlinked>, NotDeleted> {
        let deleted = session.delete().await?;
        self.forget_damage(&session.tenant);
        self.forget(session);
        Ok(deleted)
    }
}
