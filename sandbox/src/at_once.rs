//! Several things at the same time.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// Does something with each item, `width` of them at a time. `run` is what they share.
///
/// # Errors
/// The first error ends it.
pub async fn at_once<R, T, F, D>(width: usize, items: Vec<T>, run: &Arc<R>, each: F) -> anyhow::Result<()>
where
    R: Send + Sync + 'static,
    T: Send + 'static,
    F: Fn(Arc<R>, T) -> D + Copy + Send + 'static,
    D: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let items = Arc::new(Mutex::new(items.into_iter()));
    let mut workers = JoinSet::new();
    for _ in 0..width {
        let (run, items) = (Arc::clone(run), Arc::clone(&items));
        workers.spawn(async move {
            let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some(item) = next() {
                each(Arc::clone(&run), item).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    Ok(())
}
