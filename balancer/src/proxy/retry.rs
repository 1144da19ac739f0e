//! When a request may be sent again, and the copy that makes it possible.
//!
//! A request that was never sent may always go to another backend. One that was sent and
//! brought no answer is sent again only if it is idempotent, has no body, and the budget
//! allows it: 20 % of the requests and 10 a second, over all workers, unless its route has another.

use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::body::RequestBody;
use crate::route::RetrySettings;

/// Most retries that can be saved up.
const MAX_SAVED: f64 = 200.0;
/// Parts of a retry do not add up to a whole one exactly.
const ROUNDING: f64 = 1e-6;

/// A retry budget: of one worker, or of a route.
#[derive(Debug, Clone)]
pub(crate) struct RetryBudget {
    /// Retries that a request earns.
    share: f64,
    per_second: f64,
    saved: f64,
    topped_up: Instant,
}

impl RetryBudget {
    /// A budget of a share of the requests and so many a second on top.
    pub(crate) fn new(share: f64, per_second: f64, now: Instant) -> Self {
        Self { share, per_second, saved: per_second.min(MAX_SAVED), topped_up: now }
    }

    /// What one of `workers` workers has of the budget of all routes without one of their own.
    pub(crate) fn share_of(workers: usize, now: Instant) -> Self {
        let RetrySettings { share, per_second } = RetrySettings::default();
        Self::new(share, per_second / workers.max(1) as f64, now)
    }

    /// A request began.
    #[inline]
    pub(crate) fn earn(&mut self) {
        self.saved = (self.saved + self.share).min(MAX_SAVED);
    }

    /// Takes one retry out of the budget; says whether there was one.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.topped_up).as_secs_f64().min(1.0);
        self.topped_up = now;
        self.saved += self.per_second * seconds;
        if self.saved < 1.0 - ROUNDING {
            return false;
        }
        self.saved -= 1.0;
        true
    }
}

/// Whether a request may reach a backend twice.
pub(crate) fn may_repeat(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent() && matches!(request.body(), RequestBody::Empty)
}

/// A copy of a request without body. Its room is used again for the next request.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    head: Option<(Method, Uri)>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Replay {
    /// Copies a request if it may be sent twice.
    #[inline]
    pub(crate) fn keep(&mut self, request: &Request<RequestBody>) {
        self.forget();
        if !may_repeat(request) {
            return;
        }
        self.head = Some((request.method().clone(), request.uri().clone()));
        let fields = request.headers().iter();
        self.fields.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
    }

    /// Gives the buffers that the copy shares back to the connection they came from.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.head = None;
        self.fields.clear();
    }

    /// The request again, if there is a copy.
    pub(crate) fn request(&self) -> Option<Request<RequestBody>> {
        let (method, uri) = self.head.clone()?;
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        for (name, value) in &self.fields {
            headers.append(name.clone(), value.clone());
        }
        let mut request = Request::new(RequestBody::Empty);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retries_are_a_fifth_of_the_requests() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(0.2, 0.0, now);
        (0..100).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend(now)).count(), 20);
    }

    #[test]
    fn each_second_earns_its_share_of_ten() {
        let start = Instant::now();
        let mut budget = RetryBudget::share_of(2, start);
        assert_eq!((0..100).filter(|_| budget.spend(start)).count(), 5);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| budget.spend(later)).count(), 5);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| budget.spend(much_later)).count(), 5);
    }

    #[test]
    fn savings_are_bounded() {
        let now = Instant::now();
        let mut budget = RetryBudget::share_of(1, now);
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!((0..10_000).filter(|_| budget.spend(now)).count(), 200);
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(0.0, 0.0, now);
        (0..100).for_each(|_| budget.earn());
        assert!(!budget.spend(now + Duration::from_secs(60)));
    }

    #[test]
    fn a_copy_is_the_request_and_repeated_fields_stay_repeated() {
        let mut request = Request::new(RequestBody::Empty);
        *request.uri_mut() = "/a?b".parse().unwrap();
        request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
        request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
        let mut replay = Replay::default();
        replay.keep(&request);
        let copy = replay.request().unwrap();
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.headers(), request.headers());
        replay.forget();
        assert!(replay.request().is_none());
    }

    #[test]
    fn a_post_is_never_copied() {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = Method::POST;
        let mut replay = Replay::default();
        replay.keep(&request);
        assert!(replay.request().is_none());
    }
}
