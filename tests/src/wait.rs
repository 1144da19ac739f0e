//! Polling with a deadline, in place of sleeping and hoping.

use std::time::{Duration, Instant};

/// Anything that a healthy tier does at all is done within this, even emulated and on a busy host.
pub const LONG: Duration = Duration::from_secs(60);
const GAP: Duration = Duration::from_millis(20);

/// Asks until there is an answer, and returns it.
///
/// # Panics
/// There is none within `limit`; the message says `what` was waited for.
pub async fn until<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain until {what}");
        tokio::time::sleep(GAP).await;
    }
}

/// Asks until it is so.
///
/// # Panics
/// As for [`until`].
pub async fn until_true(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> bool) {
    until(what, limit, async || ask().await.then_some(())).await;
}
