//! How many streams may be open at the same time: each holds a connection, and a part of the log, for as long as its
//! reader likes.

use std::sync::Arc;

use crate::{
    http::problem::Problem,
    model::{error_code::ErrorCode, tenant::TenantId},
    util::quota::{Full, Quota, Reservation},
};

/// How many of them one tenant may have.
const EACH: u64 = 16;
/// After how many seconds it makes sense to ask again.
const PAUSE: u64 = 10;

/// The streams that are open.
pub struct Streams(Arc<Quota<TenantId>>);

/// An open one.
pub struct OpenStream {
    _one: Reservation<TenantId>,
}

impl Streams {
    /// So many for all tenants.
    pub fn new(all: usize) -> Arc<Self> {
        Arc::new(Self(Quota::new(all as u64, EACH)))
    }

    /// One more for this tenant.
    ///
    /// # Errors
    /// There may be no more.
    pub fn open(&self, tenant: &TenantId) -> Result<OpenStream, Problem> {
        let one = self.0.reserve(tenant, 1).map_err(|full| {
            let (code, whose) = match full {
                Full::Own => (ErrorCode::TooManyStreamsOfTenant, "this tenant has"),
                Full::All => (ErrorCode::TooManyStreams, "all tenants together have"),
            };
            let message = format!("Too many streams are open: {whose} as many as there may be.");
            Problem::new(code, message).retry_after(Some(PAUSE))
        })?;
        Ok(OpenStream { _one: one })
    }
}
