//! Plays a schedule against a tier: the one loop that owns all state.
//!
//! ```text
//! loading --last request due--> settling --nothing left, or time up--> done
//!    any: interrupted by the user --> done
//! ```
//!
//! Open loop: a request goes out when it is due, whatever became of the ones
//! before. Only when [`MAX_OUTSTANDING`] are under way is a request given up
//! at once, and counted as failed.

use std::collections::VecDeque;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep_until, timeout_at};

use super::client::{Answer, Broken, Connection, Endpoint, Failure, get};
use super::recorder::{Ending, Outcome, Recorder};
use super::sampler::{Sampled, Sampler};
use super::schedule::Arrival;
use super::watch::Watch;
use crate::admin::status::Status;

/// Requests under way at once; sockets and memory stay bounded when a tier stalls.
pub const MAX_OUTSTANDING: usize = 4096;
/// A request without a whole response this long after it was due has failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the screen is told.
const TICK: Duration = Duration::from_secs(1);
/// Samples that may wait for the loop.
const SAMPLES_WAITING: usize = 16;

/// Where requests go, and what they ask for.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    pub(crate) tier: Endpoint,
    pub(crate) admin: Endpoint,
    /// Path with `{n}` where the number of the item goes.
    pub(crate) path: String,
    /// How long to keep sampling after the last request was due.
    pub(crate) settle: Duration,
}

impl Course {
    pub(crate) fn path_of(&self, arrival: &Arrival) -> String {
        self.path.replace("{n}", &arrival.item.to_string())
    }
}

/// Where a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Requests are still due.
    Loading,
    /// All requests were sent; the tier shrinks.
    Settling,
}

/// All that was recorded, during the replay and at its end.
#[derive(Debug, Clone)]
pub struct Played {
    /// Requests.
    pub recorder: Recorder,
    /// The tier's own view.
    pub watch: Watch,
    /// Time since the start.
    pub elapsed: Duration,
    /// Requests under way.
    pub outstanding: usize,
    /// Where it stands.
    pub phase: Phase,
    /// When the load ended; `None` while it goes on or when it was interrupted.
    pub load_ended: Option<Duration>,
    /// Whether the user ended it early.
    pub interrupted: bool,
}

struct Player {
    course: Course,
    arrivals: std::vec::IntoIter<Arrival>,
    next: Option<Arrival>,
    requests: JoinSet<(Outcome, Option<Connection>)>,
    idle: VecDeque<Connection>,
    start: Instant,
    load_length: Duration,
    played: Played,
}

/// Plays the schedule, tells `screen` once a second, and returns what was
/// recorded. `first` is the status document from just before the start;
/// `interrupt` ends the replay early.
pub(crate) async fn play(
    course: Course,
    schedule: Vec<Arrival>,
    load_length: Duration,
    first: &Status,
    mut screen: impl FnMut(&Played),
    interrupt: impl Future<Output = ()>,
) -> Played {
    let (to, mut samples) = mpsc::channel(SAMPLES_WAITING);
    let mut sampling = JoinSet::new();
    sampling.spawn(Sampler::new(course.admin.clone()).run(to));
    let mut player = Player::new(course, schedule, load_length, first);
    let mut tick = interval_at(player.start + TICK, TICK);
    tokio::pin!(interrupt);
    while !player.is_done() {
        let wake = player.wake_at();
        tokio::select! {
            () = &mut interrupt => { player.played.interrupted = true; break }
            () = sleep_until(wake) => {}
            Some(ended) = player.requests.join_next() => player.ended(ended),
            Some(sampled) = samples.recv() => player.sampled(sampled),
            _ = tick.tick() => screen(player.now()),
        }
        player.send_due();
    }
    player.now();
    player.played
}

impl Player {
    fn new(course: Course, schedule: Vec<Arrival>, load_length: Duration, first: &Status) -> Self {
        let mut arrivals = schedule.into_iter();
        let mut watch = Watch::default();
        watch.observe(0.0, first);
        let played = Played {
            recorder: Recorder::default(),
            watch,
            elapsed: Duration::ZERO,
            outstanding: 0,
            phase: Phase::Loading,
            load_ended: None,
            interrupted: false,
        };
        Self {
            course,
            next: arrivals.next(),
            arrivals,
            requests: JoinSet::new(),
            idle: VecDeque::new(),
            start: Instant::now(),
            load_length,
            played,
        }
    }

    fn now(&mut self) -> &Played {
        self.played.elapsed = self.start.elapsed();
        self.played.outstanding = self.requests.len();
        &self.played
    }

    /// When there is something to do even if nothing happens.
    fn wake_at(&self) -> Instant {
        match (self.next, self.played.load_ended) {
            (Some(arrival), _) => self.start + arrival.at,
            (None, None) => self.start + self.load_length,
            (None, Some(ended)) => self.start + ended + self.course.settle,
        }
    }

    fn send_due(&mut self) {
        let elapsed = self.start.elapsed();
        while let Some(arrival) = self.next.filter(|arrival| arrival.at <= elapsed) {
            self.send(arrival);
            self.next = self.arrivals.next();
        }
        if self.next.is_none() && self.played.load_ended.is_none() && elapsed >= self.load_length {
            self.played.load_ended = Some(elapsed);
            self.played.phase = Phase::Settling;
        }
    }

    fn send(&mut self, arrival: Arrival) {
        self.played.recorder.offer(arrival.at);
        if self.requests.len() >= MAX_OUTSTANDING {
            let why = format!("{MAX_OUTSTANDING} requests were under way");
            let ending = Ending::Failed(Failure::ShedByPlayer, why);
            self.played.recorder.end(Outcome { due: arrival.at, done: arrival.at, ending });
            return;
        }
        let idle = self.checkout();
        let (start, tier, path) = (self.start, self.course.tier.clone(), self.course.path_of(&arrival));
        self.requests.spawn(async move { exchange(start, arrival, &tier, &path, idle).await });
    }

    /// The connection used last, so that surplus ones age and are dropped.
    fn checkout(&mut self) -> Option<Connection> {
        let now = Instant::now();
        while self.idle.front().is_some_and(|oldest| !oldest.is_fresh(now)) {
            self.idle.pop_front();
        }
        std::iter::from_fn(|| self.idle.pop_back()).find(|connection| connection.is_fresh(now))
    }

    fn ended(&mut self, ended: Result<(Outcome, Option<Connection>), tokio::task::JoinError>) {
        match ended {
            Ok((outcome, connection)) => {
                self.played.recorder.end(outcome);
                self.idle.extend(connection);
            }
            // Nobody aborts these tasks: this is a panic of ours.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn sampled(&mut self, (at, sampled): Sampled) {
        let at = at.saturating_duration_since(self.start).as_secs_f64();
        match sampled {
            Ok(status) => self.played.watch.observe(at, &status),
            Err(_) => self.played.watch.miss(),
        }
    }

    fn is_done(&self) -> bool {
        let Some(ended) = self.played.load_ended else { return false };
        let time_up = self.start.elapsed() >= ended + self.course.settle;
        self.requests.is_empty() && (time_up || self.has_settled(ended))
    }

    /// No clone is left, and a sample taken after the load says so.
    fn has_settled(&self, load_ended: Duration) -> bool {
        let last = self.played.watch.samples.last();
        self.played.watch.is_settled() && last.is_some_and(|last| last.at > load_ended.as_secs_f64())
    }
}

async fn exchange(
    start: Instant,
    arrival: Arrival,
    tier: &Endpoint,
    path: &str,
    idle: Option<Connection>,
) -> (Outcome, Option<Connection>) {
    let due = start + arrival.at;
    let attempt = async {
        let request = tier.get(path).map_err(|why| (Failure::Connect, why))?;
        get(tier, request, idle).await
    };
    let answered = timeout_at(due + REQUEST_TIMEOUT, attempt).await;
    let answered = answered
        .unwrap_or_else(|_| Err((Failure::Timeout, format!("none within {} s", REQUEST_TIMEOUT.as_secs()))));
    let (done, ending, connection) = judge(answered, path);
    let outcome = Outcome { due: arrival.at, done: done.saturating_duration_since(start), ending };
    (outcome, connection)
}

fn judge(
    answered: Result<(Answer, Option<Connection>), Broken>,
    path: &str,
) -> (Instant, Ending, Option<Connection>) {
    match answered {
        Err((failure, why)) => (Instant::now(), Ending::Failed(failure, format!("GET {path}: {why}")), None),
        Ok((answer, connection)) if answer.status.is_server_error() => {
            let why = format!("GET {path}: {}", answer.status);
            (answer.done, Ending::Failed(Failure::ServerError, why), connection)
        }
        Ok((answer, connection)) => {
            let ending = Ending::Answered {
                status: answer.status.as_u16(),
                cache_hit: cache_hit(&answer.headers),
                clone: text(&answer.headers, "x-flurry-clone"),
            };
            (answer.done, ending, connection)
        }
    }
}

/// `X-Cache: HIT`, `hit from x` and the like; anything else is a miss.
fn cache_hit(headers: &HeaderMap) -> Option<bool> {
    text(headers, "x-cache").map(|value| value.to_ascii_lowercase().starts_with("hit"))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_cache_header_is_read_whatever_its_case_and_its_absence_is_no_miss() {
        let with = |value| HeaderMap::from_iter([(http::HeaderName::from_static("x-cache"), value)]);
        assert_eq!(cache_hit(&with(HeaderValue::from_static("HIT"))), Some(true));
        assert_eq!(cache_hit(&with(HeaderValue::from_static("hit from a"))), Some(true));
        assert_eq!(cache_hit(&with(HeaderValue::from_static("MISS"))), Some(false));
        assert_eq!(cache_hit(&HeaderMap::new()), None);
    }

    #[test]
    fn a_status_above_499_is_a_failure_and_a_404_is_an_answer() {
        let answered = |status: u16| {
            let status = http::StatusCode::from_u16(status).unwrap();
            judge(Ok((Answer { status, headers: HeaderMap::new(), done: Instant::now() }, None)), "/x").1
        };
        assert_eq!(answered(404), Ending::Answered { status: 404, cache_hit: None, clone: None });
        let Ending::Failed(Failure::ServerError, why) = answered(503) else { panic!("503 must fail") };
        assert_eq!(why, "GET /x: 503 Service Unavailable");
    }
}
