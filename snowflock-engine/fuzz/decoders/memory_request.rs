//! Any text is refused, or is a request or answer that comes back as it was.

use serde::Serialize;
use serde::de::DeserializeOwned;
use snowflock_engine::memory::protocol::{Answer, Request};

/// As a request and as an answer.
pub(crate) fn check(bytes: &[u8]) {
    same_again::<Request>(bytes);
    same_again::<Answer>(bytes);
}

fn same_again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(bytes) {
        let said = serde_json::to_string(&message).expect("what was understood can be said");
        let again: T = serde_json::from_str(&said).expect("what was said can be understood");
        assert_eq!(serde_json::to_string(&again).ok(), Some(said));
    }
}
