//! The plan: every route with what becomes of its requests, resolved and ready to follow.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::connect::Targets;
use super::edit::{HeaderEdits, Rewrite, Template};
use super::matcher::{Matcher, Seen};
use super::traffic::Traffic;
use crate::account::Account;
use crate::limit::{ClientConnections, RateLimit};
use crate::load::RouteLoad;
use crate::pool::Pool;
use crate::server::Timeouts;

/// The name of the route for what no other one is for.
pub const FALLBACK: &str = "default";

/// What becomes of a request.
#[derive(Clone)]
pub enum Action {
    /// A backend of this pool answers it.
    Forward(Pool),
    /// We do.
    Answer(OwnAnswer),
    /// CONNECT leads to where one of these allows.
    Connect(Arc<Targets>),
}

/// An answer that needs no backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnAnswer {
    /// The client is sent elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// Where to.
        to: Template,
    },
    /// A text.
    Respond {
        /// The status.
        status: StatusCode,
        /// The text.
        text: Arc<str>,
    },
}

/// What a route changes and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteSettings {
    /// Path and host that backends see.
    pub rewrite: Rewrite,
    /// Changes to the fields of requests.
    pub request_headers: HeaderEdits,
    /// Changes to the fields of answers, our own ones included.
    pub response_headers: HeaderEdits,
    /// The wait for the head of an answer, instead of `timeouts.response`.
    pub response_timeout: Option<Duration>,
}

/// One route.
pub struct Route {
    /// Its name, in metrics and in the log.
    pub name: Arc<str>,
    /// Which requests it is for.
    pub matcher: Matcher,
    /// What becomes of them.
    pub action: Action,
    /// What it changes.
    pub settings: RouteSettings,
    /// Whether `settings` change nothing, so that nobody has to look.
    pub is_plain: bool,
    /// Whether its requests are what the scaler goes by.
    pub is_scaled: bool,
    /// What it lets through.
    pub traffic: Traffic,
    /// What it counts.
    pub load: RouteLoad,
}

impl Route {
    /// Puts a route together; [`scaled`](Self::scaled) says whether the scaler goes by it.
    pub fn new(
        name: &str,
        matcher: Matcher,
        action: Action,
        settings: RouteSettings,
        load: RouteLoad,
    ) -> Self {
        let is_plain = settings == RouteSettings::default();
        let (is_scaled, traffic) = (false, Traffic::default());
        Self { name: name.into(), matcher, action, settings, is_plain, is_scaled, traffic, load }
    }

    /// The same, with what it lets through.
    #[must_use]
    pub fn letting_through(self, traffic: Traffic) -> Self {
        Self { traffic, ..self }
    }

    /// The same, with whether its requests are what the scaler goes by.
    #[must_use]
    pub fn scaled(self, is_scaled: bool) -> Self {
        Self { is_scaled, ..self }
    }
}

/// All that workers follow.
pub struct Plan {
    /// Grows with every new configuration, from 1.
    pub generation: u64,
    /// Routes in order; the first that matches counts.
    pub routes: Vec<Arc<Route>>,
    /// For requests that no route is for.
    pub fallback: Arc<Route>,
    /// Limits on the requests of all routes together.
    pub limits: Vec<Arc<RateLimit>>,
    /// Connections by client.
    pub clients: Arc<ClientConnections>,
    /// Connections that one client may have; `None` for any number.
    pub connections_per_client: Option<u32>,
    /// Limits on time.
    pub timeouts: Timeouts,
    /// How often connections look at their limits.
    pub tick: Duration,
    /// Who wants an account of each request; `None` for nobody.
    pub(crate) account: Option<Arc<Account>>,
}

impl Plan {
    /// The route for a request.
    #[inline]
    pub fn route<'a>(&'a self, seen: impl FnOnce() -> Seen<'a>) -> &'a Arc<Route> {
        if self.routes.is_empty() {
            return &self.fallback;
        }
        let seen = seen();
        self.routes.iter().find(|route| route.matcher.matches(&seen)).unwrap_or(&self.fallback)
    }

    /// Every pool that a route leads to, each once.
    pub fn pools(&self) -> Vec<&Pool> {
        pools_of(self.all())
    }

    /// The pools whose load the scaler goes by: those of routes that it goes by, each once.
    pub fn scaled_pools(&self) -> Vec<&Pool> {
        pools_of(self.all().filter(|route| route.is_scaled))
    }

    /// Every route, the fallback last.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().chain([&self.fallback])
    }
}

fn pools_of<'a>(routes: impl Iterator<Item = &'a Arc<Route>>) -> Vec<&'a Pool> {
    let mut pools: Vec<&Pool> = Vec::new();
    for route in routes {
        match &route.action {
            Action::Forward(pool) if pools.iter().all(|it| !it.is(pool)) => pools.push(pool),
            Action::Forward(_) | Action::Answer(_) | Action::Connect(_) => {}
        }
    }
    pools
}
