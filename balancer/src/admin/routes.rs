//! What each path of the admin listener answers.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use prometheus::{Encoder, TextEncoder};
use serde::Serialize;
use tokio::sync::oneshot;

use super::page;
use crate::front::{Handles, Order, TierState};

/// Whoever sends an order sends this header, with any value.
pub(super) const ORDER_HEADER: &str = "flurry-order";

type Answer = Response<Full<Bytes>>;

const INDEX: &str = "flurry admin\n/ (a page, for browsers)\n/metrics\n/v1/status\n/v1/history\n/v1/decisions\n/v1/config\n/v1/reload (POST)\n/v1/scaling (POST)\n/healthz\n/readyz\n";

/// Answers one request.
pub(super) async fn answer<B>(request: Request<B>, handles: Handles) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/reload") => reload(&request, &handles).await,
        (_, "/v1/scaling") => scaling(&request, &handles),
        _ => read(&request, &handles),
    }
}

/// Asks for the configuration to be read again. Pages of other sites that a browser on
/// this host shows cannot.
async fn reload<B>(request: &Request<B>, handles: &Handles) -> Answer {
    if request.headers().contains_key(ORIGIN) {
        return text(StatusCode::FORBIDDEN, "not from a page of another site\n");
    }
    let (answer, answered) = oneshot::channel();
    if handles.asked.send(answer).await.is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "this configuration came from no file\n");
    }
    match answered.await {
        Ok(Ok(generation)) => json(&serde_json::json!({ "generation": generation })),
        Ok(Err(complaints)) => {
            let complaints: Vec<&str> = complaints.lines().collect();
            let mut refused = json(&serde_json::json!({ "complaints": complaints }));
            *refused.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
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
    }))
}

fn read<B>(request: &Request<B>, handles: &Handles) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/" if page::is_wanted(request.headers()) => page::answer(),
        "/" => text(StatusCode::OK, INDEX),
        "/metrics" => metrics(handles),
        "/v1/status" => json(&handles.status()),
        "/v1/history" => compact(&handles.board.history()),
        "/v1/config" => config(handles),
        "/v1/decisions" => json(&handles.board.decisions()),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(handles),
        _ => text(StatusCode::NOT_FOUND, INDEX),
    }
}

/// Takes an order to the scaler. The header keeps web pages that a user of this machine
/// happens to visit from giving orders: a browser does not send it to another site.
fn scaling<B>(request: &Request<B>, handles: &Handles) -> Answer {
    if request.method() != Method::POST {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refused;
    }
    if !request.headers().contains_key(ORDER_HEADER) {
        return text(StatusCode::FORBIDDEN, "an order needs the header flurry-order\n");
    }
    let order = match Order::parse(request.uri().query().unwrap_or("")) {
        Ok(order) => order,
        Err(wrong) => {
            let page = wrong.join("\n") + "\n";
            return with_type(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", page.into());
        }
    };
    if !handles.board.order(order) {
        return text(StatusCode::CONFLICT, "this tier is not scaled, or not up yet\n");
    }
    tracing::info!(order = order.query(), "an order by hand");
    let page = format!("taken: {}\n", order.query());
    with_type(StatusCode::ACCEPTED, "text/plain; charset=utf-8", page.into())
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
