//! A pool of backends: the one at the top of the file, and those under `pools`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use scaler::yaml::{Entry, Section};

use super::{Surroundings, balance, health, limits, listen, outliers, sticky, tls};
use crate::net::Address;
use crate::pool::{
    AdaptiveSettings, Balance, HealthSettings, Link, MAX_WEIGHT, OutlierSettings, PING_INTERVAL,
    PoolSettings, ProbeKind, ProxyHeader, QueueSettings, StickySettings,
};
use crate::server::ListenerSettings;
use crate::tls::BackendTlsSettings;

const REMEDY: &str = "give the address and port of a backend, e.g. 127.0.0.1:9001";

/// A pool of backends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolConfig {
    /// Backends that are always there.
    pub backends: Vec<Address>,
    /// Requests that one backend may serve at once; `None` for any number.
    pub max_in_flight: Option<u32>,
    /// Bounds of a limit that is found out, in its place.
    pub adaptive: Option<AdaptiveSettings>,
    /// How backends are probed and judged.
    pub health: HealthSettings,
    /// When one that answers badly is taken out.
    pub outliers: Option<OutlierSettings>,
    /// The wait for a backend.
    pub queue: QueueSettings,
    /// The field in which requests say their priority.
    pub priority_header: Option<HeaderName>,
    /// How the backend of a request is chosen.
    pub balance: Balance,
    /// Whether clients stick to their backend.
    pub sticky: Option<Arc<StickySettings>>,
    /// Weights of backends other than 1.
    pub weights: Vec<(Address, u32)>,
    /// How backends are spoken with.
    pub upstream: UpstreamConfig,
}

/// How backends are spoken with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// TLS.
    pub tls: Option<BackendTlsSettings>,
    /// The PROXY header that connections begin with.
    pub proxy_header: Option<ProxyHeader>,
    /// The silence on a connection of HTTP/2 after which a backend is asked for a sign of life; `None` for
    /// the default.
    pub ping_interval: Option<Duration>,
}

impl PoolConfig {
    /// What the pool is made with.
    pub fn settings(&self) -> PoolSettings {
        // What was read has been checked to build.
        let tls = self.upstream.tls.as_ref().and_then(|tls| tls.build(self.upstream.http2).ok());
        let proxy_header = self.upstream.proxy_header;
        let ping_interval = self.upstream.ping_interval.unwrap_or(PING_INTERVAL);
        let link = Arc::new(Link { http2: self.upstream.http2, tls, proxy_header, ping_interval });
        let (health, queue, balance) = (self.health.clone(), self.queue, self.balance.clone());
        let outliers = self.outliers.clone();
        PoolSettings {
            health,
            outliers,
            queue,
            priority_header: self.priority_header.clone(),
            max_in_flight: self.max_in_flight,
            adaptive: self.adaptive,
            balance,
            sticky: self.sticky.clone(),
            link,
        }
    }
}

/// Reads the keys of a pool.
pub(super) fn read(section: &mut Section<'_>, surroundings: &Surroundings<'_>) -> PoolConfig {
    let (backends, weights) = backends(section);
    let max_in_flight = section
        .u32("max_in_flight", "give the requests that one backend may serve at once, e.g. 64")
        .at_least(1)
        .optional();
    let adaptive = section.optional_section("adaptive_concurrency", limits::read_adaptive);
    if adaptive.is_some() && max_in_flight.is_some() {
        let problem = "is given beside `adaptive_concurrency`, which finds it out";
        section.complain(
            "max_in_flight",
            problem,
            "remove it, or give it as `adaptive_concurrency: {max: ..}`",
        );
    }
    let health = section.section("health", health::read);
    let outliers = section.optional_section("outliers", outliers::read);
    let (queue, priority_header) = section.section("queue", limits::read_queue);
    let balance = section.section("balance", balance::read);
    let sticky = section.optional_section("sticky", |section| sticky::read(section, surroundings));
    let upstream = section.section("upstream", |section| upstream(section, surroundings));
    if matches!(health.kind, ProbeKind::Grpc(_)) && !upstream.http2 {
        section.complain("health.kind", "is grpc, which needs HTTP/2", "give `upstream: {http2: true}`, too");
    }
    PoolConfig {
        backends,
        max_in_flight,
        adaptive,
        health,
        outliers,
        queue,
        priority_header,
        balance,
        sticky,
        weights,
        upstream,
    }
}

/// Reads the fixed backends; an empty list is complained about.
/// An entry is an address, or a section with address and weight.
fn backends(section: &mut Section<'_>) -> (Vec<Address>, Vec<(Address, u32)>) {
    let entries = section.list("backends", REMEDY).not_empty().optional().unwrap_or_default();
    let mut weights = Vec::new();
    let address = |text: String| text.parse::<Address>();
    let mut read = |entry: Entry<'_>| {
        if !entry.is_section() {
            return entry.string(REMEDY).try_map(address).check(reachable).optional();
        }
        entry.section(|section| {
            let address = section.string("address", REMEDY).try_map(address).check(reachable).required();
            let weight = section
                .u32("weight", "give how many times as many requests it gets as others, e.g. 2")
                .at_least(1)
                .at_most(MAX_WEIGHT)
                .or(1);
            weights.extend(address.clone().filter(|_| weight != 1).map(|address| (address, weight)));
            address
        })
    };
    let backends = entries.into_iter().filter_map(&mut read).collect();
    (backends, weights)
}

fn reachable(address: &Address) -> Result<(), String> {
    match address.tcp() {
        Some(tcp) if tcp.port() == 0 => Err(format!("must have a port above 0, got {address}")),
        Some(tcp) if tcp.ip().is_unspecified() => {
            Err(format!("must be an address to connect to, got {address}"))
        }
        _ => Ok(()),
    }
}

fn upstream(section: &mut Section<'_>, surroundings: &Surroundings<'_>) -> UpstreamConfig {
    let words = [("v1", ProxyHeader::Text), ("v2", ProxyHeader::Binary)];
    let http2 = section.bool("http2", "give true if the backends speak HTTP/2, e.g. for gRPC").or(false);
    let ping_interval = section
        .duration(
            "ping_interval",
            "give the silence after which a backend is asked for a sign of life, e.g. 6m",
        )
        .at_least(Duration::from_secs(1))
        .optional();
    if ping_interval.is_some() && !http2 {
        section.complain("ping_interval", "has no effect without `http2: true`", "remove it");
    }
    UpstreamConfig {
        http2,
        ping_interval,
        tls: section.optional_section("tls", |section| tls::read_client(section, surroundings)).flatten(),
        proxy_header: section
            .choice("proxy_protocol", &words, "give v1 or v2, or leave it out for no PROXY header")
            .optional(),
    }
}

/// Complains about backends given twice, and about Flurry forwarding to itself.
///
/// `pool` stands before their keys: nothing for the one at the top of the file, or `pools.NAME.`.
pub(super) fn check_loops(
    section: &Section<'_>,
    pool: &str,
    backends: &[Address],
    listeners: &[ListenerSettings],
    admin: std::net::SocketAddr,
) {
    let admin = Address::from(admin);
    for (index, backend) in backends.iter().enumerate() {
        let key = format!("{pool}backends[{index}]");
        if let Some(other) = backends[..index].iter().position(|other| other == backend) {
            section.complain(
                &key,
                format!("{backend} is {pool}backends[{other}] already"),
                "remove one of them",
            );
        }
        let own = listeners.iter().map(|it| &it.address).chain([&admin]).find(|own| leads_to(backend, own));
        if let Some(own) = own {
            section.complain(&key, format!("{backend} is Flurry itself, which listens on {own}"), REMEDY);
        }
    }
}

fn leads_to(backend: &Address, own: &Address) -> bool {
    let same_host = match (backend.tcp(), own.tcp()) {
        (Some(backend), Some(own)) => backend.ip().is_loopback() || own.ip() == backend.ip(),
        _ => true,
    };
    same_host && listen::collide(own, backend)
}
