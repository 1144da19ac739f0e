//! Which requests go where, and what is changed on the way.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use balancer::front::Front;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use support::*;

/// A backend that says its name and what it saw.
async fn named(name: &'static str) -> Backend {
    Backend::serve(move |request: Request<Incoming>| async move {
        let mut seen = format!("{name}: {} {}\n", request.method(), request.uri());
        for (field, value) in request.headers() {
            seen += &format!("{field}: {}\n", value.to_str().unwrap());
        }
        let mut answer = Response::new(Full::new(Bytes::from(seen)));
        answer.headers_mut().insert("x-secret", "inside".parse().unwrap());
        answer
    })
    .await
}

async fn ask(front: &Front, method: &str, host: &str, path: &str, fields: &str) -> (String, String) {
    let mut wire = Wire::connect(front).await;
    wire.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await;
    wire.answer().await
}

struct Setup {
    front: Front,
    _backends: [Backend; 2],
}

async fn setup(routes: &str) -> Setup {
    let (web, api) = (named("web").await, named("api").await);
    let text = format!(
        "listen: [{{address: '127.0.0.1:0', name: public}}, {{address: '127.0.0.1:0', name: inner}}]
backends: ['{}']
pools: {{api: {{backends: ['{}']}}}}
routes:
{routes}",
        web.address, api.address
    );
    let front = Site::new().open(&text).await;
    let plan = front.handles().plan.load_full();
    eventually("all pools are ready", || plan.pools().iter().all(|pool| !pool.snapshot().ready.is_empty()))
        .await;
    Setup { front, _backends: [web, api] }
}

#[tokio::test]
async fn the_first_route_that_fits_by_host_path_method_and_field_counts() {
    let setup = setup(
        "
  - {name: teapot, exact_path: /pot, respond: {status: 418, text: 'short and stout'}}
  - {name: api-host, hosts: ['*.api.test'], pool: api}
  - {name: api-path, path: /api, pool: api}
  - {name: writes, methods: [POST], headers: {x-kind: '*'}, pool: api}",
    )
    .await;
    for (method, host, path, fields, expected) in [
        ("GET", "a.test", "/", "", "web: "),
        ("GET", "v1.API.test:80", "/", "", "api: "),
        ("GET", "a.test", "/api/x", "", "api: "),
        ("GET", "a.test", "/apix", "", "web: "),
        ("POST", "a.test", "/", "X-Kind: 1\r\nContent-Length: 0\r\n", "api: "),
        ("GET", "a.test", "/", "X-Kind: 1\r\n", "web: "),
        ("GET", "a.test", "/pot", "", "short and stout"),
    ] {
        let (head, body) = ask(&setup.front, method, host, path, fields).await;
        assert!(body.starts_with(expected), "{method} {host}{path} {fields}: {head}{body}");
    }
}

#[tokio::test]
async fn an_absolute_target_is_routed_by_its_own_host() {
    let setup = setup("  - {hosts: [api.test], pool: api}").await;
    let (_, body) = ask(&setup.front, "GET", "web.test", "http://api.test/x", "").await;
    assert!(body.starts_with("api: GET /x\n") && body.contains("host: api.test\n"), "{body}");
}

#[tokio::test]
async fn redirects_carry_host_path_and_query() {
    let setup = setup(
        "  - {path: /api, pool: api}
  - {redirect: {to: 'https://{host}{path}', status: 301}}",
    )
    .await;
    let (head, body) = ask(&setup.front, "GET", "a.test", "/x?y=1", "").await;
    assert!(head.starts_with("HTTP/1.1 301 "), "{head}");
    assert!(head.contains("location: https://a.test/x?y=1\r\n"), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn paths_hosts_and_fields_are_rewritten_on_the_way() {
    let setup = setup(
        "
  - path: /api
    pool: api
    rewrite: {prefix: /v2, host: api.internal}
    request_headers: {set: {x-route: api}, remove: [x-debug]}
    response_headers: {set: {x-served-by: flurry}, remove: [x-secret]}",
    )
    .await;
    let (head, body) = ask(&setup.front, "GET", "a.test", "/api/x?y=1", "X-Debug: 1\r\n").await;
    assert!(body.starts_with("api: GET /v2/x?y=1\n"), "{body}");
    assert!(body.contains("host: api.internal\n") && body.contains("x-route: api\n"), "{body}");
    assert!(!body.contains("x-debug"), "{body}");
    assert!(head.contains("x-served-by: flurry\r\n") && !head.contains("x-secret"), "{head}");
    let (head, _) = ask(&setup.front, "GET", "a.test", "/", "").await;
    assert!(head.contains("x-secret") && !head.contains("x-served-by"), "{head}");
}

#[tokio::test]
async fn a_route_can_be_for_one_listener() {
    let setup = setup("  - {listeners: [inner], pool: api}").await;
    for (index, expected) in ["web: ", "api: "].into_iter().enumerate() {
        let stream = tokio::net::TcpStream::connect(setup.front.listen()[index]).await.unwrap();
        let (_, body) = Wire(stream).get("/").await;
        assert!(body.starts_with(expected), "{body}");
    }
}

#[tokio::test]
async fn a_route_may_wait_less_than_others() {
    let slow = Backend::serve(|_| async {
        tokio::time::sleep(SECOND).await;
        ok("late")
    })
    .await;
    let routes = "routes: [{name: quick, path: /quick, response_timeout: 100ms}]";
    let text = format!("listen: ['127.0.0.1:0']\nbackends: ['{}']\n{routes}", slow.address);
    let front = Site::new().open(&text).await;
    assert!(ask(&front, "GET", "a", "/quick", "").await.0.starts_with("HTTP/1.1 504"));
    assert!(ask(&front, "GET", "a", "/", "").await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn without_a_pool_of_its_own_the_rest_is_not_found() {
    let api = named("api").await;
    let text = format!(
        "listen: ['127.0.0.1:0']\npools: {{api: {{backends: ['{}']}}}}\nroutes: [{{path: /api, pool: api}}]",
        api.address
    );
    let front = Site::new().config(&text);
    let front = Front::open(&front).await.unwrap();
    assert!(ask(&front, "GET", "a", "/", "").await.0.starts_with("HTTP/1.1 404"));
    assert!(ask(&front, "GET", "a", "/api", "").await.1.starts_with("api: "));
    let handles = front.handles();
    eventually("serving", || handles.board.state().word() == "serving").await;
}

#[tokio::test]
async fn each_route_counts_its_requests() {
    let setup = setup("  - {name: api-path, path: /api, pool: api}").await;
    for path in ["/api", "/api/x", "/"] {
        ask(&setup.front, "GET", "a.test", path, "").await;
    }
    let plan = setup.front.handles().plan.load_full();
    let counted = |name: &str| {
        let route = plan.all().find(|route| &*route.name == name).unwrap().clone();
        move || route.load.sum(|it| &it.by_class[2])
    };
    let (api, rest) = (counted("api-path"), counted("default"));
    eventually("both are counted", || (api(), rest()) == (2, 1)).await;
}

#[tokio::test]
async fn requests_with_the_same_key_meet_at_one_backend_and_round_robin_spreads_evenly() {
    let backends = [Backend::text("a").await, Backend::text("b").await, Backend::text("c").await];
    let list: Vec<String> = backends.iter().map(|it| format!("'{}'", it.address)).collect();
    let text = |balance: &str| {
        format!("listen: ['127.0.0.1:0']\nbackends: [{}]\nbalance: {balance}", list.join(", "))
    };
    let site = Site::new();
    let mut front = site.open(&text("{policy: hash, by: header, header: x-user}")).await;
    let pool = front.handles().pool;
    eventually("all are ready", || pool.snapshot().ready.len() == 3).await;
    for user in ["ann", "bob", "eve", "joe"] {
        let field = format!("X-User: {user}\r\n");
        let (_, first) = ask(&front, "GET", "a", "/", &field).await;
        for _ in 0..5 {
            assert_eq!(ask(&front, "GET", "a", "/", &field).await.1, first, "{user}");
        }
    }
    front.reload(site.config(&text("{policy: round_robin}"))).unwrap();
    let before: Vec<u64> = backends.iter().map(Backend::count).collect();
    for _ in 0..9 {
        ask(&front, "GET", "a", "/", "").await;
    }
    let after: Vec<u64> = backends.iter().zip(before).map(|(it, before)| it.count() - before).collect();
    assert_eq!(after, [3, 3, 3]);
}

#[tokio::test]
async fn answers_of_our_own_are_edited_too_and_so_is_one_that_accepts_an_upgrade() {
    let switching = raw_backend(|mut stream, _| async move {
        use tokio::io::AsyncWriteExt;
        let head =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: test\r\nserver: x\r\n\r\n";
        stream.write_all(head).await.unwrap();
    })
    .await;
    let edits = "response_headers: {set: {x-served-by: flurry}, remove: [server]}";
    let text = format!(
        "listen: ['127.0.0.1:0']
backends: ['{switching}']
routes:
  - {{path: /text, respond: {{text: hello}}, {edits}}}
  - {{path: /moved, redirect: {{to: /text}}, {edits}}}
  - {{path: /upgrade, {edits}}}"
    );
    let front = Site::new().open(&text).await;
    for (path, status) in [("/text", 404), ("/moved", 308), ("/upgrade", 101)] {
        let (head, _) = ask(&front, "GET", "a", path, "Connection: upgrade\r\nUpgrade: test\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains("x-served-by: flurry\r\n") && !head.contains("server:"), "{head}");
    }
}

#[tokio::test]
async fn the_status_shows_the_backends_of_all_pools() {
    let setup = setup("  - {path: /api, pool: api}").await;
    let status = balancer::admin::fetch_status(setup.front.admin()).await.unwrap();
    let pools: Vec<&str> = status.backends.iter().map(|it| it.pool.as_str()).collect();
    assert_eq!((pools, status.scaling.ready), (vec!["api", "default"], 2));
}
