//! Traces: what backends are told, and what a collector gets. The collector is a server here.

use std::sync::{Arc, Mutex};

use balancer::front::Front;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::admin;
use super::support::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a collector was sent.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<Value>>>);

impl Collected {
    async fn serve(&self, status: StatusCode) -> Backend {
        let kept = Arc::clone(&self.0);
        Backend::serve(move |request| {
            let kept = Arc::clone(&kept);
            async move {
                let right = request.uri().path() == "/v1/traces"
                    && request.headers()["content-type"] == "application/json";
                let body = request.into_body().collect().await.unwrap().to_bytes();
                kept.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                let mut answer = Response::new(Full::default());
                *answer.status_mut() = if right { status } else { StatusCode::BAD_REQUEST };
                answer
            }
        })
        .await
    }

    /// All spans so far.
    fn spans(&self) -> Vec<Value> {
        let all = self.0.lock().unwrap();
        let list = |value: &Value, key: &str| value[key].as_array().unwrap().clone();
        let resources = all.iter().flat_map(|document| list(document, "resourceSpans"));
        let scopes = resources.flat_map(|resource| list(&resource, "scopeSpans"));
        scopes.flat_map(|scope| list(&scope, "spans")).collect()
    }
}

fn attribute(of: &Value, key: &str) -> Option<String> {
    let all = of["attributes"].as_array().unwrap();
    let found = &all.iter().find(|attribute| attribute["key"] == key)?["value"];
    found.get("stringValue").or(found.get("intValue")).and_then(Value::as_str).map(str::to_owned)
}

/// A backend that answers with the `traceparent` and the `tracestate` it gets.
async fn echo() -> Backend {
    Backend::serve(|request| async move {
        let field = |name: &str| request.headers().get(name).map_or("none", |it| it.to_str().unwrap());
        Response::new(Full::from(format!("{} {}", field("traceparent"), field("tracestate"))))
    })
    .await
}

async fn traced(wire: &mut Wire, parent: &str) -> String {
    wire.send(format!(
        "GET /a?secret HTTP/1.1\r\nHost: a\r\ntraceparent: {parent}\r\ntracestate: x=1\r\n\r\n"
    ))
    .await;
    wire.answer().await.1
}

/// Waits until a line is in the metrics: counts come after the collector's answer.
async fn counted(front: &Front, line: &str) {
    let mut page = String::new();
    for _ in 0..200 {
        page = admin(front, "/metrics", "").await;
        if page.contains(line) {
            return;
        }
        tokio::time::sleep(SECOND / 50).await;
    }
    panic!("no {line} in {page}");
}

#[tokio::test]
async fn a_request_and_each_of_its_tries_are_spans_of_one_trace() {
    let collected = Collected::default();
    let collector = collected.serve(StatusCode::OK).await;
    let (breaks, backend) = (raw_backend(|_stream, _head| async {}).await, echo().await);
    let site = Site::new();
    let text = format!(
        "listen: ['127.0.0.1:0']\nname: shop\nbackends: ['{breaks}', '{}']\nbalance: {{policy: round_robin}}\n\
         access_log: {{path: access.log}}\n\
         tracing: {{endpoint: 'http://{}/v1/traces', sample: 100%, resource: {{host.name: web-1}}}}",
        backend.address, collector.address
    );
    let front = site.open(&text).await;
    let pool = front.handles().pool;
    eventually("both are ready", || pool.snapshot().ready.len() == 2).await;
    let mut wire = Wire::connect(&front).await;
    let told = [wire.get("/a?secret").await.1, wire.get("/a?secret").await.1];
    let requests = || collected.spans().iter().filter(|span| span["kind"] == 2).count();
    eventually("the spans of both requests came", || requests() == 2).await;
    let spans = collected.spans();
    let servers: Vec<&Value> = spans.iter().filter(|span| span["kind"] == 2).collect();
    let twice = servers
        .iter()
        .find(|span| spans.iter().filter(|it| it["parentSpanId"] == span["spanId"]).count() == 2);
    let server = twice.unwrap();
    assert!(server.get("parentSpanId").is_none() && server.get("status").is_none(), "{server}");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", "/a"),
        ("url.scheme", "http"),
        ("server.address", "a"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("flurry.route", "default"),
    ] {
        assert_eq!(attribute(server, key).as_deref(), Some(value), "{key} of {server:#}");
    }
    let tries: Vec<&Value> = spans.iter().filter(|it| it["parentSpanId"] == server["spanId"]).collect();
    assert!(tries.iter().all(|it| it["kind"] == 3 && it["traceId"] == server["traceId"]), "{tries:#?}");
    let failed = tries.iter().find(|it| it["status"]["code"] == 2).unwrap();
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("broke off"));
    assert_eq!(attribute(failed, "server.port"), Some(breaks.port().to_string()));
    let fine = tries.iter().find(|it| it.get("status").is_none()).unwrap();
    assert_eq!(attribute(fine, "http.request.resend_count").as_deref(), Some("1"));
    // The backend was told of the very try that it was.
    let (trace, span) = (server["traceId"].as_str().unwrap(), fine["spanId"].as_str().unwrap());
    let tells = |it: &&String| **it == format!("00-{trace}-{span}-03 none");
    assert!(told.iter().any(|it| tells(&it)), "{told:?}, {trace}, {span}");
    let (began, ended) = (&server["startTimeUnixNano"], &server["endTimeUnixNano"]);
    assert!(
        began.as_str().unwrap().parse::<u64>().unwrap() < ended.as_str().unwrap().parse::<u64>().unwrap()
    );
    let resource = collected.0.lock().unwrap()[0]["resourceSpans"][0]["resource"].clone();
    assert_eq!(attribute(&resource, "service.name").as_deref(), Some("shop"));
    assert_eq!(attribute(&resource, "host.name").as_deref(), Some("web-1"));
    assert!(!spans.iter().any(|span| span.to_string().contains("secret")));
    let log = std::fs::read_to_string(site.path("access.log")).unwrap();
    assert!(log.contains(&format!("\"trace_id\":\"{trace}\"")), "{log}");
    let sent = format!("flurry_spans_total{{result=\"sent\"}} {}\n", spans.len());
    counted(&front, &sent).await;
}

#[tokio::test]
async fn who_is_believed_goes_on_with_its_trace_and_the_others_words_go() {
    let backend = echo().await;
    let backends = format!("backends: ['{}']", backend.address);
    let open = |extra: String| {
        let text = format!("listen: ['127.0.0.1:0']\n{backends}\n{extra}");
        async move { Site::new().open(&text).await }
    };
    let front = open("tracing: {sample: 0%}\ntrusted_proxies: [127.0.0.1]".into()).await;
    let mut wire = Wire::connect(&front).await;
    let told = traced(&mut wire, PARENT).await;
    assert!(told.starts_with(&PARENT[..36]) && told.ends_with("-01 x=1"), "{told}");
    assert_ne!(told[36..52], PARENT[36..52]);
    assert_eq!(traced(&mut wire, "00-malformed").await, "none none");
    for nobody in ["tracing: {sample: 0%}", "tracing: {trust: nobody}\ntrusted_proxies: [127.0.0.1]"] {
        let front = open(nobody.into()).await;
        assert_eq!(traced(&mut Wire::connect(&front).await, PARENT).await, "none none", "{nobody}");
    }
    let front = open("tracing: {trust: everyone}".into()).await;
    assert!(traced(&mut Wire::connect(&front).await, PARENT).await.starts_with(&PARENT[..36]));
    let front = open(String::new()).await;
    assert_eq!(traced(&mut Wire::connect(&front).await, PARENT).await, format!("{PARENT} x=1"));
}

#[tokio::test]
async fn a_collector_that_is_unwell_loses_spans_and_no_request() {
    let collected = Collected::default();
    let collector = collected.serve(StatusCode::SERVICE_UNAVAILABLE).await;
    let backend = echo().await;
    let text = |endpoint: std::net::SocketAddr| {
        format!(
            "listen: ['127.0.0.1:0']\nbackends: ['{}']\n\
             tracing: {{endpoint: 'http://{endpoint}/v1/traces', sample: 100%, timeout: 100ms}}",
            backend.address
        )
    };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for endpoint in [collector.address, nobody.local_addr().unwrap()] {
        let front = Site::new().open(&text(endpoint)).await;
        assert!(Wire::connect(&front).await.get("/").await.1.starts_with("00-"));
        counted(&front, "flurry_spans_total{result=\"failed\"} 2\n").await;
        front.close().await;
    }
}

#[tokio::test]
async fn spans_of_the_last_requests_are_sent_before_the_end() {
    let collected = Collected::default();
    let collector = collected.serve(StatusCode::OK).await;
    let backend = echo().await;
    let text = format!(
        "listen: ['127.0.0.1:0']\nbackends: ['{}']\ntracing: {{endpoint: 'http://{}/v1/traces', sample: 100%}}",
        backend.address, collector.address
    );
    let front = Site::new().open(&text).await;
    Wire::connect(&front).await.get("/").await;
    front.close().await;
    assert_eq!(collected.spans().len(), 2);
}

#[tokio::test]
async fn latencies_name_a_trace_as_an_example_for_who_asks_for_open_metrics() {
    let backend = echo().await;
    let text =
        format!("listen: ['127.0.0.1:0']\nbackends: ['{}']\ntracing: {{sample: 100%}}", backend.address);
    let front = Site::new().open(&text).await;
    let told = Wire::connect(&front).await.get("/").await.1;
    let trace = told.split('-').nth(1).unwrap();
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let mut page = String::new();
    for _ in 0..200 {
        page = admin(&front, "/metrics", accept).await;
        if page.contains(trace) {
            break;
        }
        tokio::time::sleep(SECOND / 50).await;
    }
    assert!(page.contains("content-type: application/openmetrics-text; version=1.0.0"), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
    let example = page.lines().find(|line| line.contains(trace)).unwrap_or_else(|| panic!("{page}"));
    assert!(example.starts_with("flurry_request_duration_seconds_bucket{le=\""), "{example}");
    assert!(example.contains(&format!("}} 1 # {{trace_id=\"{trace}\"}} ")), "{example}");
    assert!(page.contains("# TYPE flurry_requests counter\n"), "{page}");
    assert!(page.contains("flurry_requests_total{class=\"2xx\"} 1\n"), "{page}");
    assert!(!admin(&front, "/metrics", "").await.contains(trace));
}
