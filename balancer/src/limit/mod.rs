//! How many requests there may be in a time: for everyone, or for each client.
//!
//! A limit is a token bucket, kept as one number (GCRA): the time at which it will be full again.
//! All workers share it, so a limit holds for the process whatever the number of workers. Clients
//! have a bucket each in a map of bounded size.

mod bucket;
mod clients;
mod keyed;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};

pub use bucket::{Rate, Verdict};
pub use clients::{ClientConnections, Connected};
use keyed::Keyed;

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountBy {
    /// All.
    Everyone,
    /// Those of one client: an IPv4 address, or a /64 of IPv6.
    Client,
    /// Those with the same value of a field; those without it, too.
    Header(HeaderName),
}

/// A limit as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitSettings {
    /// Its name, in metrics and in answers.
    pub name: String,
    /// Whose requests are counted together.
    pub by: CountBy,
    /// How many there may be.
    pub rate: Rate,
    /// Clients that are remembered.
    pub max_keys: usize,
}

/// Who sends a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) address: Option<IpAddr>,
    pub(crate) headers: &'a HeaderMap,
}

enum Buckets {
    One(AtomicU64),
    Many(Box<Keyed>),
}

/// A limit with its buckets.
pub struct RateLimit {
    settings: RateLimitSettings,
    since: Instant,
    buckets: Buckets,
    refused: AtomicU64,
}

impl RateLimit {
    /// A limit with full buckets.
    pub fn new(settings: RateLimitSettings, now: Instant) -> Self {
        let buckets = match settings.by {
            CountBy::Everyone => Buckets::One(AtomicU64::new(0)),
            CountBy::Client | CountBy::Header(_) => Buckets::Many(Box::new(Keyed::new(settings.max_keys))),
        };
        Self { settings, since: now, buckets, refused: AtomicU64::new(0) }
    }

    /// What it was made of.
    pub fn settings(&self) -> &RateLimitSettings {
        &self.settings
    }

    /// Requests refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Clients that are remembered now.
    pub fn keys(&self) -> usize {
        match &self.buckets {
            Buckets::One(_) => 1,
            Buckets::Many(keyed) => keyed.len(),
        }
    }

    /// Takes a token for a request, or says how long it will be until there is one.
    pub(crate) fn take(&self, sender: Sender<'_>, now: Instant) -> Verdict {
        let now = now.saturating_duration_since(self.since);
        let rate = &self.settings.rate;
        let verdict = match &self.buckets {
            Buckets::One(bucket) => rate.take_shared(bucket, now),
            Buckets::Many(keyed) => keyed.with(&self.key(sender), |bucket| rate.take(bucket, now)),
        };
        if matches!(verdict, Verdict::Wait(_)) {
            self.refused.fetch_add(1, Relaxed);
        }
        verdict
    }

    fn key<'a>(&self, sender: Sender<'a>) -> Key<'a> {
        match &self.settings.by {
            CountBy::Everyone => Key::Nobody,
            CountBy::Client => sender.address.map_or(Key::Nobody, Key::address),
            CountBy::Header(name) => {
                sender.headers.get(name).map_or(Key::Nobody, |value| Key::Value(value.as_bytes()))
            }
        }
    }

    /// Time in which an empty bucket fills.
    pub(crate) fn window(&self) -> Duration {
        self.settings.rate.time_to_fill()
    }
}

/// Whose bucket it is.
#[derive(Debug, Hash)]
enum Key<'a> {
    /// Of those who do not say.
    Nobody,
    /// Of a network.
    Network(u64),
    /// Of those with this value.
    Value(&'a [u8]),
}

impl Key<'_> {
    /// One who has an IPv6 address has a /64 of them.
    fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Network(u64::from(address.to_bits())),
            IpAddr::V6(address) => Self::Network((address.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const SECOND: Duration = Duration::from_secs(1);

    fn limit(by: CountBy, max_keys: usize, now: Instant) -> RateLimit {
        let rate = Rate { requests: 1, per: SECOND, burst: 2 };
        RateLimit::new(RateLimitSettings { name: "x".into(), by, rate, max_keys }, now)
    }

    fn passes(limit: &RateLimit, address: &str, headers: &HeaderMap, now: Instant) -> bool {
        let sender = Sender { address: address.parse().ok(), headers };
        matches!(limit.take(sender, now), Verdict::Pass { .. })
    }

    #[test]
    fn everyone_shares_one_bucket() {
        let (now, headers) = (Instant::now(), HeaderMap::new());
        let limit = limit(CountBy::Everyone, 1, now);
        let passed = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|it| passes(&limit, it, &headers, now));
        assert_eq!(passed, [true, true, false]);
        assert!(passes(&limit, "10.0.0.1", &headers, now + SECOND));
        assert_eq!(limit.refused(), 1);
    }

    #[test]
    fn each_client_has_a_bucket_and_a_network_of_ipv6_is_one_client() {
        let (now, headers) = (Instant::now(), HeaderMap::new());
        let limit = limit(CountBy::Client, 100, now);
        let mut take = |address| passes(&limit, address, &headers, now);
        assert_eq!(
            ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"].map(&mut take),
            [true, true, false, true]
        );
        assert!(!take("::ffff:10.0.0.1"), "the same client over IPv6");
        assert_eq!(["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(&mut take), [true, true, false]);
        assert!(take("2001:db8:0:1::1"));
        assert_eq!(limit.keys(), 4);
    }

    #[test]
    fn values_of_a_field_have_buckets_and_nobody_gets_around_them_by_saying_nothing() {
        let now = Instant::now();
        let limit = limit(CountBy::Header(HeaderName::from_static("x-key")), 100, now);
        let with = |value: &str| {
            HeaderMap::from_iter([(HeaderName::from_static("x-key"), HeaderValue::from_str(value).unwrap())])
        };
        let take = |headers: &HeaderMap| passes(&limit, "10.0.0.1", headers, now);
        assert!(take(&with("a")) && take(&with("a")) && !take(&with("a")) && take(&with("b")));
        let without = HeaderMap::new();
        assert!(take(&without) && take(&without) && !take(&without));
    }

    #[test]
    fn memory_is_bounded_however_many_clients_come() {
        let (now, headers) = (Instant::now(), HeaderMap::new());
        let limit = limit(CountBy::Client, 1000, now);
        for client in 0..100_000_u32 {
            passes(&limit, &std::net::Ipv4Addr::from_bits(client).to_string(), &headers, now);
        }
        assert!(limit.keys() <= 1000, "{}", limit.keys());
    }
}
