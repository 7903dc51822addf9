//! The end of a session: its device is unlinked at WhatsApp, and what is on the disk is deleted.
//!
//! It is written down before it begins. What was begun goes on by itself until it is done, also after a restart, and is
//! not taken back: a device that is unlinked is of no use any more.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;

use crate::{
    model::session_state::{State, Status},
    session::{Session, outbox::deleted, state::Snapshot, stop},
    store::{devices::RecordChange, error::StoreError},
    util::clock::timestamp,
    whatsapp::{client::Client, fact::Fact},
};

/// How long the server may take to confirm that a device is unlinked.
const UNLINK_LIMIT: Duration = Duration::from_secs(5);

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
    pub async fn delete(&self) -> Result<Option<Unlinked>, NotDeleted> {
        let mut lifecycle = self.lifecycle.lock().await;
        if lifecycle.ended {
            return Ok(None);
        }
        let unlinked = match lifecycle.unlinked {
            Some(unlinked) => unlinked,
            None => {
                self.note_deletion().await.map_err(NotDeleted::NotBegun)?;
                // What is accepted from now on is given up by the one who accepted it.
                let goes_on = self.connection.gone.swap(true, Ordering::AcqRel);
                let unlinked = self.unlink(goes_on).await;
                *lifecycle.unlinked.insert(unlinked)
            }
        };
        stop(&mut lifecycle).await;
        let store = &self.store;
        let erased = async {
            store.give_up_all(&self.connection.lease, deleted()).await?;
            store.delete_device(&self.connection.lease).await
        };
        if let Err(error) = erased.await {
            self.apply(Fact::StorageFailed("It is being deleted, and the disk does not allow that yet.".into()));
            return Err(NotDeleted::Unfinished(error));
        }
        lifecycle.ended = true;
        self.outbox.queue.lock().clear();
        self.tell(json!({"state": "deleted", "status": Status::NotFound, "since": timestamp(self.connection.now())}));
        self.states.flush().await;
        Ok(Some(unlinked))
    }

    /// Writes down that the session is being deleted. One without a link has nothing that a later process could go on
    /// with, and what can't be read is deleted all the same.
    async fn note_deletion(&self) -> Result<(), StoreError> {
        let store = &self.store;
        let noted = async {
            if store.recorded(&self.tenant).await?.paired {
                store.change_record(&self.connection.lease, vec![RecordChange::Deleting]).await?;
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
        let live = self.connection.live.lock().clone();
        let on_disk = self.is_recorded_as_paired().await;
        let in_client = live.as_ref().is_some_and(|live| live.client.phone().is_some());
        let linked = on_disk || in_client || self.connection.snapshot.borrow().is_paired();
        match live {
            _ if !linked || self.connection.snapshot.borrow().state == State::LoggedOut => Unlinked::NotLinked,
            _ if goes_on && self.connection.snapshot.borrow().seems_unlinked() => Unlinked::Confirmed,
            Some(live) => self.unlink_at_server(&live.client).await,
            None => Unlinked::NotTold,
        }
    }

    /// Ends the link at the server.
    async fn unlink_at_server(&self, client: &Client) -> Unlinked {
        // What the server said before may have been a mistake.
        let seemed_unlinked = self.connection.snapshot.borrow().seems_unlinked();
        let Some(told) = client.unlink(UNLINK_LIMIT).await else { return Unlinked::NotLinked };
        // The server ends the connection of a device that it has just removed, maybe before its answer is read.
        if !told && !seemed_unlinked {
            self.connection.wait_until(Duration::from_secs(1), Snapshot::seems_unlinked).await;
        }
        let removed = !seemed_unlinked && self.connection.snapshot.borrow().seems_unlinked();
        if told || removed { Unlinked::Confirmed } else { Unlinked::NotTold }
    }
}
