//! Tasks that go on for as long as the process does, whatever happens in them.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

/// How long a task that has panicked rests before it begins again: it doubles each time, up to so much.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs what `begin` begins. After a panic it is begun again: a fault in one round must not end all that come after it.
pub async fn supervised<F: Future<Output = ()>>(what: &'static str, mut begin: impl FnMut() -> F) {
    let mut pause = PAUSE;
    while AssertUnwindSafe(async { begin().await }).catch_unwind().await.is_err() {
        tracing::error!(what, "a task has failed badly; it begins again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_not_the_end() {
        let mut rounds = 0;
        supervised("test", || {
            rounds += 1;
            let round = rounds;
            assert!(round != 1, "before there is a future");
            async move { assert!(round > 3, "in it") }
        })
        .await;
        assert_eq!(rounds, 4);
    }
}
