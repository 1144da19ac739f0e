//! Attack suites of others against a running front door: slowhttptest (slow heads, bodies,
//! readers, ranges) and testssl.sh (protocols, ciphers, known holes of TLS).

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use balancer::front::Front;
use bytes::Bytes;
use http_body_util::Full;
use support::*;
use tokio::process::Command;

/// Connections of an attack, and its longest time in seconds.
const CONNECTIONS: u32 = 200;
const SECONDS: u32 = 20;

const LIMITS: &str = "timeouts: {request_header: 2s, client_stall: 2s, idle: 4s}";

/// More than the buffers of two sockets hold.
static LARGE: [u8; 16 << 20] = [b'x'; 16 << 20];

async fn front_of_much() -> (Front, Backend) {
    let body = || http::Response::new(Full::new(Bytes::from_static(&LARGE)));
    let backend = Backend::serve(move |request| async move {
        match request.uri().path() {
            "/large" => body(),
            _ => ok("hello"),
        }
    })
    .await;
    (ready_front(&[backend.address], LIMITS).await, backend)
}

/// Runs slowhttptest; the connections that it had at its end, and what it said. A client of its own
/// asks for the same page meanwhile, and is to be answered within two seconds.
async fn slowly(front: &Front, path: &str, attack: &[&str]) -> (u32, String) {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let url = format!("http://{}{path}", front.listen()[0]);
    let (connections, seconds) = (CONNECTIONS.to_string(), SECONDS.to_string());
    let output = Command::new("slowhttptest")
        .args(attack)
        .args(["-c", &connections, "-r", "100", "-i", "1", "-p", "2", "-l", &seconds, "-g", "-o"])
        .args([report.to_str().unwrap(), "-u", &url])
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows = std::fs::read_to_string(report.with_extension("csv")).unwrap();
    let columns: Vec<String> = rows.lines().next().unwrap().split(',').map(str::to_owned).collect();
    let at = columns.iter().position(|it| it.trim() == "Connected").unwrap();
    let connected = rows.lines().last().unwrap().split(',').nth(at).unwrap().trim().parse().unwrap();
    (connected, said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_send_slowly_lose_their_connections_and_nobody_else_waits() {
    let (front, _backend) = front_of_much().await;
    for attack in [&["-H"][..], &["-B", "-t", "POST"], &["-R"]] {
        let (connected, said) = slowly(&front, "/", attack).await;
        assert!(said.contains("YES") && !said.contains("NO"), "{attack:?}: {said}");
        assert!(connected <= CONNECTIONS / 10, "{attack:?}: {connected} are left\n{said}");
    }
}

/// The suite itself sees the end of a connection only when it has read what came before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_slowly_are_cut_off_while_they_think_that_they_go_on() {
    let (front, backend) = front_of_much().await;
    let pool = front.handles().pool;
    let attack = async {
        let options = ["-X", "-n", "5", "-z", "32", "-w", "256", "-y", "512"];
        let (connected, said) = slowly(&front, "/large", &options).await;
        assert!(said.contains("YES") && !said.contains("NO"), "{said}");
        assert_eq!(connected, CONNECTIONS, "{said}");
    };
    let watch = async {
        eventually("the attack is on", || backend.count() >= u64::from(CONNECTIONS)).await;
        eventually("its requests are cut off", || pool.in_flight() <= 1).await;
    };
    tokio::select! {
        () = watch => {}
        () = attack => panic!("its requests have lasted as long as the attack"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_tls_finds_nothing_worth_a_warning() {
    let site = Site::new();
    site.certificate("own");
    let backend = Backend::text("hello").await;
    let front = site
        .open(&format!(
            "listen: [{{address: '127.0.0.1:0', tls: {{certificates: [{{chain: own.pem, key: own.key}}]}}}}]\n\
             backends: ['{}']\n",
            backend.address
        ))
        .await;
    eventually("the backend is ready", || !front.handles().pool.snapshot().ready.is_empty()).await;
    let address = front.listen()[0].to_string();
    let findings = site.path("findings.json");
    let options = [
        "--quiet",
        "--color",
        "0",
        "--warnings",
        "off",
        "--assume-http",
        "-p",
        "-s",
        "-f",
        "-U",
        "--jsonfile",
    ];
    let output = Command::new("testssl").args(options).args([&findings, &address]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let mut findings: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(&findings).unwrap()).unwrap();
    // What it says of the openssl that it runs.
    findings.retain(|it| it["id"] != "engine_problem");
    let of = |id: &str| findings.iter().find(|it| it["id"] == id).map(|it| it["finding"].as_str().unwrap());
    assert!(findings.len() > 30, "{said}");
    assert_eq!(of("TLS1_3"), Some("offered with final"), "{said}");
    assert_eq!((of("TLS1"), of("TLS1_1")), (Some("not offered"), Some("not offered")), "{said}");
    let bad: Vec<_> =
        findings.iter().filter(|it| !matches!(it["severity"].as_str(), Some("OK" | "INFO"))).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
