//! Deleting a session: begun once, it goes on until it is done, also after a restart.

use crate::session::Session;
use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::sleep;

use crate::{
    manager::Manager,
    model::{session_state::State, tenant::TenantId},
    session::{
        deletion::{NotDeleted, Unlinked},
        state::Snapshot,
    },
    util::supervise::supervised,
};

/// How long a session may take to connect after a restart, to be unlinked.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait before something is deleted again that could not be.
const PAUSE: Duration = Duration::from_secs(1);

impl Manager {
    /// Unlinks and deletes the tenant's session; `None` where there is none, or no longer. It is done to its end, also if
    /// the caller goes.
    pub async fn delete(self: &Arc<Self>, tenant: &TenantId) -> Result<Option<Unlinked>, NotDeleted> {
        let Some(session) = self.get(tenant) else { return Ok(None) };
        let manager = self.clone();
        let deleting = self.shared.tasks.spawn(async move {
            let deleted = match AssertUnwindSafe(manager.delete_now(&session)).catch_unwind().await {
                Ok(deleted) => deleted,
                Err(panic) => {
                    // What was begun comes to its end all the same.
                    if session.connection.gone.load(Ordering::Acquire) {
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
    pub(crate) fn go_on_deleting(self: &Arc<Self>, session: Arc<Session>) {
        session.connection.gone.store(true, Ordering::Release);
        if session.deleting.swap(true, Ordering::AcqRel) {
            return;
        }
        let manager = self.clone();
        self.shared.tasks.spawn(supervised("deletion", move || {
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
        self.forget(session);
        Ok(deleted)
    }
}
