//! How many streams may be open at the same time: each holds a connection, and a part of the log, for as long as its
//! reader likes.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;

use crate::{
    http::problem::Problem,
    model::tenant::TenantId,
    util::shares::{Full, Shares},
};

/// How many of them one tenant may have.
const EACH: u64 = 16;
/// After how many seconds it makes sense to ask again.
const PAUSE: u64 = 10;

/// The streams that are open.
pub struct Streams(Mutex<Shares>);

/// An open one.
pub struct OpenStream {
    streams: Arc<Streams>,
    tenant: TenantId,
}

impl Streams {
    /// So many for all tenants.
    pub fn new(all: usize) -> Arc<Self> {
        Arc::new(Self(Shares::new(all as u64, EACH).into()))
    }

    /// One more for this tenant, if there may be one.
    pub fn open(self: &Arc<Self>, tenant: &TenantId) -> Result<OpenStream, Problem> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.fit(tenant, 1).map_err(|full| {
            let (status, whose) = match full {
                Full::Own => (StatusCode::TOO_MANY_REQUESTS, "this tenant has"),
                Full::All => (StatusCode::SERVICE_UNAVAILABLE, "all tenants together have"),
            };
            let message = format!("Too many streams are open: {whose} as many as there may be.");
            Problem::new(status, "Too many streams", "too_many_streams", message).retry_after(Some(PAUSE))
        })?;
        shares.add(Some(tenant), 1);
        Ok(OpenStream { streams: self.clone(), tenant: tenant.clone() })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.0.lock().unwrap_or_else(PoisonError::into_inner).remove(Some(&self.tenant), 1);
    }
}
