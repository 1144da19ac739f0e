//! How many connections each client may have open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open connections by client. It knows only those who have one, so it is as small as they are few.
#[derive(Debug, Default)]
pub struct ClientConnections {
    open: Mutex<HashMap<IpAddr, u32>>,
    refused: AtomicU64,
}

/// One connection of a client; dropping it makes room for another.
#[derive(Debug)]
pub struct Connected {
    of: Arc<ClientConnections>,
    client: IpAddr,
}

impl ClientConnections {
    /// Lets one more in, unless its client has `most` already.
    pub fn enter(self: &Arc<Self>, client: IpAddr, most: u32) -> Option<Connected> {
        let client = client.to_canonical();
        let mut open = self.open();
        let count = open.entry(client).or_insert(0);
        if *count >= most {
            if *count == 0 {
                open.remove(&client);
            }
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        *count += 1;
        Some(Connected { of: Arc::clone(self), client })
    }

    /// Connections closed at once because their clients had as many as they may.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Clients that have connections open.
    pub fn clients(&self) -> usize {
        self.open().len()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut open = self.of.open();
        let Some(count) = open.get_mut(&self.client) else { return };
        *count -= 1;
        if *count == 0 {
            open.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_as_it_may_and_others_have_theirs() {
        let open = Arc::new(ClientConnections::default());
        let enter = |address: &str| open.enter(address.parse().unwrap(), 2);
        let (first, _second) = (enter("10.0.0.1").unwrap(), enter("::ffff:10.0.0.1").unwrap());
        assert!(enter("10.0.0.1").is_none());
        let other = enter("10.0.0.2").unwrap();
        drop(first);
        assert!(enter("10.0.0.1").is_some());
        assert_eq!(open.clients(), 2);
        drop(other);
        assert_eq!(open.clients(), 1);
    }

    #[test]
    fn who_may_have_none_is_not_remembered() {
        let open = Arc::new(ClientConnections::default());
        assert!(open.enter("10.0.0.1".parse().unwrap(), 0).is_none());
        assert_eq!(open.clients(), 0);
    }
}
