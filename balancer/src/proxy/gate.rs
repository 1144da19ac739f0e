//! Whether a request may pass at all, how often it may be sent again, and who goes first.

use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};

use super::affinity;
use super::body::ResponseBody;
use super::reply::reply;
use crate::limit::{RateLimit, Sender, Verdict};
use crate::pool::{Pool, Priority};
use crate::route::{Plan, Route};
use crate::server::{Session, Worker};

/// The fields of draft-ietf-httpapi-ratelimit-headers: what there is, and what is left of it.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// The answer to a request that is one too many. Its route's limits come first: what they refuse
/// takes nothing from everyone's.
pub(super) fn refuse<B>(
    plan: &Plan,
    route: &Route,
    request: &Request<B>,
    session: &Session,
) -> Option<Response<ResponseBody>> {
    if route.traffic.limits.is_empty() && plan.limits.is_empty() {
        return None;
    }
    let address = affinity::client(request.headers(), session);
    let (sender, now) = (Sender { address, headers: request.headers() }, Instant::now());
    let mut limits = route.traffic.limits.iter().chain(&plan.limits);
    limits.find_map(|limit| match limit.take(sender, now) {
        Verdict::Pass { .. } => None,
        Verdict::Wait(wait) => Some(too_many(limit, wait)),
    })
}

fn too_many(limit: &RateLimit, wait: Duration) -> Response<ResponseBody> {
    let mut answer = reply(StatusCode::TOO_MANY_REQUESTS, "too many requests\n");
    let settings = limit.settings();
    let (seconds, window) = (whole_seconds(wait), whole_seconds(limit.window()));
    let fields = [
        (RETRY_AFTER, seconds.to_string()),
        (POLICY, format!("\"{}\";q={};w={window}", settings.name, settings.rate.burst)),
        (LEFT, format!("\"{}\";r=0;t={seconds}", settings.name)),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// Rounded up: who comes at that second finds a token.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// A request is forwarded: that earns a part of a retry.
#[inline]
pub(super) fn earn(worker: &Worker, route: &Route) {
    if route.traffic.budget(|budget| budget.earn()).is_none() {
        worker.budget.borrow_mut().earn();
    }
}

/// Takes a retry out of the budget; says whether there was one.
pub(super) fn may_retry(worker: &Worker, route: &Route, now: Instant) -> bool {
    let own = route.traffic.budget(|budget| budget.spend(now));
    own.unwrap_or_else(|| worker.budget.borrow_mut().spend(now))
}

/// Who goes first when there is a line: what the route says, else what the request says.
#[inline]
pub(super) fn priority<B>(pool: &Pool, route: &Route, request: &Request<B>) -> Priority {
    let said = || {
        let name = pool.priority_header()?;
        request.headers().get(name)?.to_str().ok().and_then(Priority::of_word)
    };
    route.traffic.priority.or_else(said).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{CountBy, Rate, RateLimitSettings};

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let rate = Rate { requests: 5, per: Duration::from_secs(60), burst: 3 };
        let settings = RateLimitSettings { name: "login".into(), by: CountBy::Everyone, rate, max_keys: 16 };
        let limit = RateLimit::new(settings, Instant::now());
        let answer = too_many(&limit, Duration::from_millis(11_001));
        assert_eq!(answer.status(), 429);
        let field = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(field("retry-after"), "12");
        assert_eq!(field("ratelimit-policy"), "\"login\";q=3;w=36");
        assert_eq!(field("ratelimit"), "\"login\";r=0;t=12");
    }
}
