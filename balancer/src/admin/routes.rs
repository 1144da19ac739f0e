//! What each path of the admin listener answers.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use prometheus::{Encoder, TextEncoder};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{open_metrics, page};
use crate::front::{Handles, Order, TierState};

type Answer = Response<Full<Bytes>>;

/// The document of all this, for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// What there is to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Index,
    Metrics,
    Status,
    History,
    Decisions,
    Config,
    OpenApi,
    Health,
    Readiness,
    Reload,
    Upgrade,
    Scaling,
}

/// Every path, and whether it is written to.
const PATHS: [(&str, Page); 12] = [
    ("/", Page::Index),
    ("/metrics", Page::Metrics),
    ("/v1/status", Page::Status),
    ("/v1/history", Page::History),
    ("/v1/decisions", Page::Decisions),
    ("/v1/config", Page::Config),
    ("/v1/openapi.json", Page::OpenApi),
    ("/v1/reload", Page::Reload),
    ("/v1/upgrade", Page::Upgrade),
    ("/v1/scaling", Page::Scaling),
    ("/healthz", Page::Health),
    ("/readyz", Page::Readiness),
];

impl Page {
    fn of(path: &str) -> Option<Self> {
        PATHS.iter().find(|(known, _)| *known == path).map(|(_, page)| *page)
    }

    fn is_order(self) -> bool {
        matches!(self, Self::Reload | Self::Upgrade | Self::Scaling)
    }

    fn takes(self, method: &Method) -> bool {
        match self.is_order() {
            true => method == Method::POST,
            false => method == Method::GET || method == Method::HEAD,
        }
    }
}

/// Answers one request.
pub(super) async fn answer<B>(request: Request<B>, handles: Handles) -> Answer {
    // A page that a user of this host happens to visit may lead a name of its own here.
    if !is_for_us(&request) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "ask for an address or for localhost, not for a name\n",
        );
    }
    let Some(page) = Page::of(request.uri().path()) else { return index(StatusCode::NOT_FOUND) };
    if !page.takes(request.method()) {
        return not_allowed(page);
    }
    // Browsers say where a POST comes from, and nobody else does: pages that a user of this
    // host happens to visit give no orders.
    if page.is_order() && request.headers().contains_key(ORIGIN) {
        return text(StatusCode::FORBIDDEN, "not from a page of another site\n");
    }
    match page {
        Page::Reload => order(&handles.asked, "generation", StatusCode::UNPROCESSABLE_ENTITY).await,
        Page::Upgrade => order(&handles.upgrade_asked, "pid", StatusCode::CONFLICT).await,
        _ => read(page, &request, &handles),
    }
}

/// Whether what is asked for is an address, or this host under the name that nobody else can have.
/// Browsers always say it.
fn is_for_us<B>(request: &Request<B>) -> bool {
    let asked = match request.headers().get(HOST) {
        Some(host) => Authority::try_from(host.as_bytes()).ok(),
        None => request.uri().authority().cloned(),
    };
    match asked {
        None => !request.headers().contains_key(HOST),
        Some(asked) => {
            let host = asked.host().trim_matches(['[', ']']);
            host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
        }
    }
}

fn read<B>(page: Page, request: &Request<B>, handles: &Handles) -> Answer {
    match page {
        Page::Index if page::is_wanted(request.headers()) => page::answer(),
        Page::Index => index(StatusCode::OK),
        Page::Metrics if open_metrics::is_wanted(request.headers()) => open_metrics(handles),
        Page::Metrics => metrics(handles),
        Page::Status => json(&handles.status()),
        Page::History => compact(&handles.board.history()),
        Page::Decisions => json(&handles.board.decisions()),
        Page::Config => config(handles),
        Page::OpenApi => {
            with_type(StatusCode::OK, "application/json", Bytes::from_static(OPENAPI.as_bytes()))
        }
        Page::Health => text(StatusCode::OK, "ok\n"),
        Page::Readiness => readiness(handles),
        // Answered before, for it takes time.
        Page::Reload | Page::Upgrade => not_allowed(page),
        Page::Scaling => scaling(request.uri().query().unwrap_or(""), handles),
    }
}

fn index(status: StatusCode) -> Answer {
    let line =
        |(path, page): &(&str, Page)| format!("{path}{}\n", if page.is_order() { " (POST)" } else { "" });
    let lines: String = PATHS.iter().map(line).collect();
    with_type(status, "text/plain; charset=utf-8", format!("flurry admin\n{lines}").into())
}

fn not_allowed(page: Page) -> Answer {
    let allowed = if page.is_order() { "POST" } else { "GET, HEAD" };
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refused
}

/// Asks `flurry up` for something; what comes of it is told under `key`, or why not with the status `otherwise`.
async fn order<T: serde::Serialize>(
    doer: &mpsc::Sender<oneshot::Sender<Result<T, String>>>,
    key: &str,
    otherwise: StatusCode,
) -> Answer {
    let (answer, answered) = oneshot::channel();
    if doer.send(answer).await.is_err() {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "this is no `flurry up`, which has a file and arguments\n",
        );
    }
    match answered.await {
        Ok(Ok(done)) => json(&serde_json::json!({ (key): done })),
        Ok(Err(complaints)) => {
            let complaints: Vec<&str> = complaints.lines().collect();
            let mut refused = json(&serde_json::json!({ "complaints": complaints }));
            *refused.status_mut() = otherwise;
            refused
        }
        Err(_gone) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

/// Which configuration is in force, and how the last one was taken.
fn config(handles: &Handles) -> Answer {
    let reloads = &handles.reloads;
    json(&serde_json::json!({
        "generation": handles.plan.load().generation,
        "reloads": { "taken": reloads.taken(), "refused": reloads.refused() },
        "last_error": reloads.error(),
        "pid": std::process::id(),
        "upgrades": { "failed": handles.upgrades.refused(), "last_error": handles.upgrades.error() },
    }))
}

/// Takes an order to the scaler.
fn scaling(query: &str, handles: &Handles) -> Answer {
    let order = match Order::parse(query) {
        Ok(order) => order,
        Err(wrong) => {
            let page = wrong.join("\n") + "\n";
            return with_type(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", page.into());
        }
    };
    let (status, said) = match handles.board.order(order) {
        Ok(said) => (StatusCode::ACCEPTED, said),
        Err(why) => (StatusCode::CONFLICT, why),
    };
    tracing::info!(order = order.query(), said, "an order by hand");
    with_type(status, "text/plain; charset=utf-8", (said + "\n").into())
}

/// Whether requests get an answer now: the tier serves and a backend is ready.
fn readiness(handles: &Handles) -> Answer {
    let nobody = !handles.any_ready();
    match handles.board.state() {
        TierState::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        TierState::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        TierState::Serving if nobody => text(StatusCode::SERVICE_UNAVAILABLE, "no backend is ready\n"),
        TierState::Serving => text(StatusCode::OK, "ready\n"),
    }
}

fn metrics(handles: &Handles) -> Answer {
    let encoder = TextEncoder::new();
    let mut page = Vec::new();
    match encoder.encode(&handles.registry.gather(), &mut page) {
        Ok(()) => with_type(StatusCode::OK, prometheus::TEXT_FORMAT, page.into()),
        Err(error) => failed(&error),
    }
}

/// The same with the traces of examples.
fn open_metrics(handles: &Handles) -> Answer {
    let exemplars = handles.plan.load().account.as_ref().map(|it| it.exemplars()).unwrap_or_default();
    let page = open_metrics::encode(&handles.registry.gather(), &exemplars);
    with_type(StatusCode::OK, open_metrics::KIND, page.into())
}

fn json<T: Serialize>(document: &T) -> Answer {
    match serde_json::to_vec_pretty(document) {
        Ok(page) => with_type(StatusCode::OK, "application/json", page.into()),
        Err(error) => failed(&error),
    }
}

/// The same without spaces, for what is long.
fn compact<T: Serialize>(document: &T) -> Answer {
    match serde_json::to_vec(document) {
        Ok(page) => with_type(StatusCode::OK, "application/json", page.into()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Answer {
    tracing::error!(%error, "an admin page cannot be made");
    text(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be made, see the log\n")
}

fn text(status: StatusCode, page: &'static str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", Bytes::from_static(page.as_bytes()))
}

fn with_type(status: StatusCode, kind: &'static str, page: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(page));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_can_lead_here_are_not_ours() {
        let asked = |host: Option<&str>| {
            let request = host.into_iter().fold(Request::get("/"), |it, host| it.header(HOST, host));
            is_for_us(&request.body(()).unwrap())
        };
        for ours in ["127.0.0.1:9900", "[::1]:9900", "localhost", "LOCALHOST:80", "10.0.0.1"] {
            assert!(asked(Some(ours)), "{ours}");
        }
        assert!(asked(None), "HTTP/1.0");
        for other in ["evil.test", "evil.test:9900", "localhost.evil.test", "127.0.0.1.evil.test", "", "a b"]
        {
            assert!(!asked(Some(other)), "{other}");
        }
    }

    /// The test of its schemas is with the real listener.
    #[test]
    fn the_openapi_document_has_every_path_with_its_method_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let described = document["paths"].as_object().unwrap();
        assert_eq!(described.len(), PATHS.len());
        for (path, page) in PATHS {
            let methods: Vec<&String> = described[path].as_object().unwrap().keys().collect();
            assert_eq!(methods, [if page.is_order() { "post" } else { "get" }], "{path}");
        }
    }
}
