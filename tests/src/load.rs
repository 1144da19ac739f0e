//! Clients that ask again and again, each over its own keep-alive connection,
//! and keep count of every request that was not answered well.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::wait::{LONG, until_true};

/// A request may wait for a clone to be born, on a busy host.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answered with 200, by the clone that answered.
    pub answered: BTreeMap<String, u64>,
    /// Not answered, or not with 200, in words.
    pub failures: Vec<String>,
}

impl Outcome {
    /// All that were answered with 200.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.answered.values().sum()
    }
}

/// A load that goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Outcome>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    stop: AtomicBool,
    closing: AtomicBool,
    answered: AtomicU64,
}

impl Load {
    /// So many clients, which ask for items of the demo application.
    #[must_use]
    pub fn start(address: SocketAddr, clients: u32) -> Self {
        let (stop, closing) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { address, stop, closing, answered: AtomicU64::new(0) });
        let each = |client: u32| play(Arc::clone(&shared), client);
        Self { clients: (0..clients).map(each).collect(), shared }
    }

    /// Waits until so many more requests have been answered.
    ///
    /// # Panics
    /// They are not.
    pub async fn goes_on(&self, requests: u64) {
        let so_far = self.shared.answered.load(Ordering::Relaxed);
        let answered = async || self.shared.answered.load(Ordering::Relaxed) >= so_far + requests;
        until_true(&format!("{requests} more requests are answered"), LONG, answered).await;
    }

    /// From now on the tier may refuse connections: a client that gets none just ends. Whatever was
    /// sent over a connection must still be answered.
    pub fn tier_may_close(&self) {
        self.shared.closing.store(true, Ordering::SeqCst);
    }

    /// Waits until every client was turned away.
    ///
    /// # Panics
    /// One goes on.
    pub async fn turned_away(self) -> Outcome {
        tokio::time::timeout(LONG, collect(self.clients)).await.expect("every client is turned away")
    }

    /// Lets every client end its request.
    pub async fn stop(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        collect(self.clients).await
    }
}

async fn collect(clients: JoinSet<Outcome>) -> Outcome {
    let mut all = Outcome::default();
    for outcome in clients.join_all().await {
        all.failures.extend(outcome.failures);
        for (clone, count) in outcome.answered {
            *all.answered.entry(clone).or_default() += count;
        }
    }
    all
}

async fn play(shared: Arc<Shared>, client: u32) -> Outcome {
    let mut outcome = Outcome::default();
    let mut connection = None;
    let mut item = client;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut open = match connection.take().filter(Client::is_open) {
            Some(open) => open,
            None => match connect(&shared).await {
                Ok(new) => new,
                Err(_) if shared.closing.load(Ordering::SeqCst) => return outcome,
                Err(why) => {
                    outcome.failures.push(why);
                    continue;
                }
            },
        };
        item = item % 20 + 1;
        match open.get(&format!("/item/{item}"), ANSWER_LIMIT).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                *outcome.answered.entry(answer.clone.unwrap_or_default()).or_default() += 1;
                shared.answered.fetch_add(1, Ordering::Relaxed);
                connection = Some(open);
            }
            Ok(answer) => outcome.failures.push(format!("{}: {}", answer.status, answer.text())),
            Err(why) => outcome.failures.push(why),
        }
    }
    outcome
}

/// A connection, or a pause before the next try: a tier that is down would be hammered.
async fn connect(shared: &Shared) -> Result<Client, String> {
    let connected = match TcpStream::connect(shared.address).await {
        Ok(stream) => Client::over(stream).await,
        Err(error) => Err(error.to_string()),
    };
    if connected.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    connected
}
