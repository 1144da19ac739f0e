//! A client for measurements (`tests/bench proxy`): requests that go out when they are
//! due, or connections that stay open and do nothing.
//!
//!   open_loop ADDRESS rate REQUESTS_PER_SECOND SECONDS CONNECTIONS
//!   open_loop ADDRESS idle CONNECTIONS
//!
//! `rate` counts latency from the moment a request was due, so that one slow answer
//! delays no later measurement and hides none (no coordinated omission). It prints
//! `{"requests","failed","p50_us","p99_us","p999_us"}`. `idle` opens connections, sends
//! one request over each, prints `ready`, and keeps them until its input ends.
//!
//! One thread, no HTTP library: the client has to cost less than what it measures. It
//! understands answers with Content-Length only.

#![allow(clippy::print_stdout, reason = "its result goes to standard output")]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

type Failure = Box<dyn std::error::Error>;

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: bench\r\n\r\n";
/// The first share of the time is for warming up: its latencies do not count.
const WARM_UP: f64 = 0.25;
/// After the last request was sent, answers are waited for this long.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// One connection and the answer that is coming in.
struct Line {
    stream: TcpStream,
    due: Option<Instant>,
    head: Vec<u8>,
    body_left: usize,
}

impl Line {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, due: None, head: Vec::new(), body_left: 0 })
    }

    /// Takes what has come; says whether the answer is complete.
    fn take(&mut self) -> Result<bool, Failure> {
        let mut room = [0; 16 * 1024];
        let length = match self.stream.read(&mut room) {
            Ok(0) => return Err("closed".into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            other => other?,
        };
        let mut bytes = &room[..length];
        if self.body_left == 0 {
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(false) };
            self.body_left = content_length(&self.head[..end])?;
            bytes = &[];
            self.body_left = self.body_left.saturating_sub(self.head.len() - end - 4);
        }
        self.body_left = self.body_left.saturating_sub(bytes.len());
        Ok(self.body_left == 0)
    }
}

fn content_length(head: &[u8]) -> Result<usize, Failure> {
    let head = std::str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("answered {}", head.lines().next().unwrap_or_default()).into());
    }
    let named = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned);
    Ok(head.lines().find_map(named).ok_or("no Content-Length")?.trim().parse()?)
}

/// What came of the requests.
#[derive(Default)]
struct Tally {
    answered: usize,
    micros: Vec<u64>,
    failed: usize,
}

struct Player {
    address: SocketAddr,
    epoll: Epoll,
    lines: Vec<Line>,
    free: Vec<usize>,
    waiting: VecDeque<Instant>,
    counts_from: Instant,
    tally: Tally,
}

impl Player {
    fn new(address: SocketAddr, connections: usize) -> Result<Self, Failure> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut player = Self {
            address,
            epoll,
            lines: Vec::new(),
            free: (0..connections).collect(),
            waiting: VecDeque::new(),
            counts_from: Instant::now(),
            tally: Tally::default(),
        };
        for index in 0..connections {
            let line = player.connect(index)?;
            player.lines.push(line);
        }
        Ok(player)
    }

    fn connect(&self, index: usize) -> Result<Line, Failure> {
        let line = Line::open(self.address)?;
        line.stream.set_nonblocking(true)?;
        self.epoll.add(line.stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        Ok(line)
    }

    fn send_due(&mut self) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop() else { return Ok(()) };
            let line = &mut self.lines[index];
            line.due = self.waiting.pop_front();
            line.head.clear();
            if line.stream.write(REQUEST).ok() != Some(REQUEST.len()) {
                self.broke(index)?;
            }
        }
        Ok(())
    }

    fn broke(&mut self, index: usize) -> Result<(), Failure> {
        self.tally.failed += usize::from(self.lines[index].due.is_some());
        self.lines[index] = self.connect(index)?;
        if !self.free.contains(&index) {
            self.free.push(index);
        }
        Ok(())
    }

    fn receive(&mut self, wait: Duration) -> Result<(), Failure> {
        let mut events = [EpollEvent::empty(); 256];
        let wait = EpollTimeout::try_from(wait.as_millis() as i32)?;
        let count = self.epoll.wait(&mut events, wait)?;
        for event in &events[..count] {
            let index = event.data() as usize;
            match self.lines[index].take() {
                Ok(false) => {}
                Ok(true) => {
                    let due = self.lines[index].due.take();
                    self.answered(due);
                    self.free.push(index);
                }
                Err(_) => self.broke(index)?,
            }
        }
        Ok(())
    }

    fn answered(&mut self, due: Option<Instant>) {
        let Some(due) = due else { return };
        self.tally.answered += 1;
        if due >= self.counts_from {
            self.tally.micros.push(due.elapsed().as_micros() as u64);
        }
    }

    /// Sends requests evenly spaced for a while.
    fn play(mut self, rate: f64, length: Duration) -> Result<Tally, Failure> {
        let start = Instant::now();
        self.counts_from = start + length.mul_f64(WARM_UP);
        let gap = Duration::from_secs_f64(1.0 / rate);
        let total = (length.as_secs_f64() * rate) as u32;
        let mut sent = 0;
        loop {
            let now = Instant::now();
            while sent < total && start + gap * sent <= now {
                self.waiting.push_back(start + gap * sent);
                sent += 1;
            }
            self.send_due()?;
            let all_back = self.waiting.is_empty() && self.free.len() == self.lines.len();
            if sent == total && (all_back || now > start + length + LAST_WAIT) {
                break;
            }
            // Below a millisecond epoll cannot wait; others need the processor, too.
            let next = (start + gap * sent).saturating_duration_since(Instant::now());
            if next < Duration::from_millis(1) {
                std::thread::sleep(next.min(Duration::from_micros(50)));
            }
            self.receive(next.min(Duration::from_millis(5)))?;
        }
        self.tally.failed += total as usize - self.tally.answered - self.tally.failed;
        Ok(self.tally)
    }
}

fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn rate(address: SocketAddr, options: &[String]) -> Result<(), Failure> {
    let [rate, seconds, connections] = options else { return Err("rate: RATE SECONDS CONNECTIONS".into()) };
    let player = Player::new(address, connections.parse()?)?;
    let mut tally = player.play(rate.parse()?, Duration::from_secs_f64(seconds.parse()?))?;
    tally.micros.sort_unstable();
    let at = |share| percentile(&tally.micros, share);
    println!(
        r#"{{"requests":{},"failed":{},"p50_us":{},"p99_us":{},"p999_us":{}}}"#,
        tally.answered,
        tally.failed,
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

fn idle(address: SocketAddr, options: &[String]) -> Result<(), Failure> {
    let [connections] = options else { return Err("idle: CONNECTIONS".into()) };
    let mut lines = Vec::new();
    for _ in 0..connections.parse()? {
        let mut line = Line::open(address)?;
        line.stream.write_all(REQUEST)?;
        while !line.take()? {}
        lines.push(line);
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, what, options @ ..] = &arguments[..] else {
        return Err("open_loop ADDRESS rate|idle ...".into());
    };
    match what.as_str() {
        "rate" => rate(address.parse()?, options),
        "idle" => idle(address.parse()?, options),
        other => Err(format!("neither rate nor idle: {other}").into()),
    }
}
