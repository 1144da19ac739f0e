//! One guest of an engine, asked over its private network.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use snowflock_engine::network::Dialer;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};
use crate::wait::{LONG, until_true};

/// Overwriting memory that is frozen costs a fault a page, and each waits for its turn on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);
/// The demo guest's web server.
const PORT: u16 = 80;

/// A guest. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Guest {
    dialer: Dialer,
    address: SocketAddr,
}

/// What memory and disk of a guest hold, as sums that the guest computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Of the test buffer in memory.
    pub memory: String,
    /// Of the test file on the disk, read past the page cache.
    pub disk: String,
}

impl Guest {
    /// The guest at this address.
    #[must_use]
    pub fn new(dialer: Dialer, ip: Ipv4Addr) -> Self {
        Self { dialer, address: (ip, PORT).into() }
    }

    /// Asks for a path, over a connection of its own.
    ///
    /// # Errors
    /// In words: no connection, no whole answer within `limit`.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<Answer, String> {
        let asked = async {
            let stream = self.dialer.dial(self.address).await.map_err(|error| error.to_string())?;
            Client::over(stream).await?.get(path, limit).await
        };
        let asked = tokio::time::timeout(limit, asked).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    /// Asks for a JSON document.
    ///
    /// # Panics
    /// There is none.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path, PATIENCE).await.and_then(|answer| answer.json());
        answer.unwrap_or_else(|why| panic!("{} {path}: {why}", self.address))
    }

    /// Waits until it answers requests.
    ///
    /// # Panics
    /// It does not.
    pub async fn answers(&self) {
        let what = format!("{} answers", self.address);
        let limit = Duration::from_secs(2);
        let healthy = async || self.get("/healthz", limit).await.is_ok_and(|answer| answer.status == 200);
        until_true(&what, LONG, healthy).await;
    }

    /// Makes test buffer and test file, of so many MiB each, with the pattern of `seed`.
    ///
    /// # Panics
    /// The guest does not.
    pub async fn fill(&self, memory_mib: u32, disk_mib: u32, seed: u64) -> Content {
        let memory = self.json(&format!("/memory/fill?mib={memory_mib}&seed={seed}")).await;
        let disk = self.json(&format!("/disk/write?mib={disk_mib}&seed={seed}")).await;
        content(&memory, &disk)
    }

    /// Overwrites both with the pattern of another seed.
    ///
    /// # Panics
    /// The guest does not.
    pub async fn overwrite(&self, seed: u64) -> Content {
        let memory = self.json(&format!("/memory/overwrite?seed={seed}")).await;
        let disk = self.json(&format!("/disk/overwrite?seed={seed}")).await;
        content(&memory, &disk)
    }

    /// Sums up both.
    ///
    /// # Panics
    /// The guest does not.
    pub async fn content(&self) -> Content {
        content(&self.json("/memory/checksum").await, &self.json("/disk/checksum").await)
    }

    /// Overwrites both again and again, with one seed after another from `first`, until told to stop.
    #[must_use]
    pub fn keep_overwriting(&self, first: u64) -> Overwriting {
        let (guest, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut seed = first;
            loop {
                let content = guest.overwrite(seed).await;
                seed += 1;
                if told.load(Ordering::Relaxed) {
                    return (content, seed - first);
                }
            }
        });
        Overwriting { stop, task }
    }
}

fn content(memory: &Value, disk: &Value) -> Content {
    let digest = |of: &Value| of["digest"].as_str().expect("a digest").to_owned();
    Content { memory: digest(memory), disk: digest(disk) }
}

/// A guest that overwrites its memory and disk.
#[derive(Debug)]
pub struct Overwriting {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(Content, u64)>,
}

impl Overwriting {
    /// Ends it after the round under way; returns what the guest holds then, and the number of rounds.
    ///
    /// # Panics
    /// A round has failed.
    pub async fn stop(self) -> (Content, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the guest overwrites")
    }
}
