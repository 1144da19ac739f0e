//! The program `flurry` as its user meets it: arguments, messages, signals, exit codes.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use balancer::admin::fetch_status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn flurry(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flurry")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Any free ports.
const ANY: [SocketAddr; 2] = [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0); 2];

/// `flurry up` with a configuration of its own; killed when dropped.
struct Up {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
    _folder: TempDir,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(
    folder: &Path,
    [listen, admin]: [SocketAddr; 2],
    backend: SocketAddr,
    extra: &str,
) -> PathBuf {
    let file = folder.join("flurry.yaml");
    let text =
        format!("listen: ['{listen}']\nadmin: '{admin}'\nworkers: 2\nbackends: ['{backend}']\n{extra}\n");
    std::fs::write(&file, text).unwrap();
    file
}

/// Where clients come in and where the admin listener is, if a line of the log says it.
fn addresses_in(line: &str) -> Option<[SocketAddr; 2]> {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest);
    let (listen, admin) = (after("listen=[Tcp(")?, after("admin=")?);
    Some([listen.split_once(')')?.0.parse().unwrap(), admin.trim().parse().unwrap()])
}

impl Up {
    /// Starts and waits until the backend is ready.
    fn start(backend: SocketAddr, extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = write_config(folder.path(), ANY, backend, extra);
        let mut command = Command::new(env!("CARGO_BIN_EXE_flurry"));
        let command = command.args(["up", "-c", file.to_str().unwrap()]).env("RUST_LOG", "info");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (mut addresses, mut ready) = (None, false);
        while addresses.is_none() || !ready {
            let line = log.next().expect("it comes up");
            ready |= line.contains("backend ready");
            addresses = addresses.or_else(|| addresses_in(&line));
        }
        let [listen, admin] = addresses.unwrap();
        // Goes on reading, so that the program never waits for us.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, listen, admin, file, _folder: folder }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    async fn exit_code(&mut self) -> Option<i32> {
        for _ in 0..2000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(SECOND / 200).await;
        }
        panic!("it did not end within ten seconds");
    }
}

#[test]
fn check_prints_every_complaint_with_the_file_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    std::fs::write(&file, "listen: []\nqueue: {timeout: 10}\nbakends: [127.0.0.1:1]\n").unwrap();
    let checked = flurry(&["check", file.to_str().unwrap()]);
    let file = file.display();
    assert_eq!(checked.status.code(), Some(2));
    assert_eq!(
        text(&checked.stdout),
        format!(
            "{file}: listen: must not be empty (give addresses with ports, e.g. [0.0.0.0:80])\n\
             {file}: queue.timeout: must be a duration with a unit, got 10 (give the longest wait for a backend, e.g. 10s)\n\
             {file}: backends: is missing, and so is `vm`: there is nothing to forward to (give `backends: [127.0.0.1:9001]` or a section `vm`)\n\
             {file}: bakends: is not a known key (did you mean `backends`?)\n"
        )
    );
}

#[test]
fn check_finds_no_fault_with_the_example() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/static.yaml");
    let checked = flurry(&["check", example]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stdout));
    assert!(text(&checked.stdout).ends_with(": ok (tier `static`)\n"));
}

#[test]
fn a_file_that_is_not_there_or_no_yaml_is_named() {
    let missing = flurry(&["up", "-c", "/nonexistent/flurry.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).starts_with("/nonexistent/flurry.yaml: cannot be read: No such file"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    std::fs::write(&file, "listen: [127.0.0.1:80\nname: x\n").unwrap();
    let checked = flurry(&["check", file.to_str().unwrap()]);
    assert!(text(&checked.stdout).contains("bad.yaml: line 2"), "{}", text(&checked.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_reported_with_its_key() {
    let backend = Backend::text("hello").await;
    let up = Up::start(backend.address, "");
    let folder = tempfile::tempdir().unwrap();
    for (addresses, key) in [
        ([up.listen, ANY[0]], format!("listen[0]: cannot listen on {}", up.listen)),
        ([ANY[0], up.admin], format!("admin: cannot listen on {}", up.admin)),
    ] {
        let file = write_config(folder.path(), addresses, backend.address, "");
        let second = flurry(&["up", "-c", file.to_str().unwrap()]);
        assert_eq!(second.status.code(), Some(1));
        let message = text(&second.stderr);
        assert!(message.contains(&key) && message.contains("another program listens there"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_a_table_or_json_and_says_where_nobody_is() {
    let backend = Backend::text("hello").await;
    let up = Up::start(backend.address, "");
    let folder = tempfile::tempdir().unwrap();
    let file = write_config(folder.path(), [up.listen, up.admin], backend.address, "");
    let shown = flurry(&["status", "-c", file.to_str().unwrap()]);
    let table = text(&shown.stdout);
    assert!(table.contains(&format!("tier      tier (serving) on {}", up.listen)), "{table}");
    assert!(table.contains(&format!("{}  ready", backend.address)), "{table}");
    let shown = flurry(&["status", "--json", "--admin", &up.admin.to_string()]);
    let status: balancer::admin::status::Status = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(status.scaling.ready, 1);
    // Bound, and never listened on.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind(ANY[0]).unwrap();
    let nobody = bound.local_addr().unwrap();
    let shown = flurry(&["status", "--admin", &nobody.to_string()]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(text(&shown.stderr).contains(&format!("no admin listener at {nobody}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_line_of_a_running_tier_is_drawn_to_a_file_or_it_is_said_why_not() {
    let backend = Backend::text("hello").await;
    let up = Up::start(backend.address, "");
    let folder = tempfile::tempdir().unwrap();
    let file = write_config(folder.path(), [up.listen, up.admin], backend.address, "");
    let (config, picture) = (file.to_str().unwrap(), folder.path().join("tier.svg"));
    let drawn = flurry(&["timeline", "-c", config, "--svg", picture.to_str().unwrap()]);
    assert!(drawn.status.success() && drawn.stdout.is_empty(), "{drawn:?}");
    let picture = std::fs::read_to_string(picture).unwrap();
    let title = format!("{}; fixed backends", up.listen);
    assert!(picture.contains("Tier tier") && picture.contains(&title), "{picture}");
    let printed = flurry(&["timeline", "-c", config]);
    assert!(text(&printed.stdout).starts_with("<svg "), "{printed:?}");
    let nowhere = folder.path().join("missing/tier.svg");
    let refused = flurry(&["timeline", "-c", config, "--svg", nowhere.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains(&format!("cannot write {}", nowhere.display())), "{refused:?}");
    let nobody = flurry(&["timeline", "--admin", "127.0.0.1:9"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no admin listener at 127.0.0.1:9"), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_no_request() {
    let backend = Backend::serve(|_| async {
        tokio::time::sleep(SECOND / 200).await;
        ok("hello")
    })
    .await;
    let mut up = Up::start(backend.address, "");
    let load = Load::start(up.listen, 16);
    tokio::time::sleep(SECOND / 2).await;
    up.signal(Signal::SIGTERM);
    assert_eq!(up.exit_code().await, Some(0));
    let outcome = load.ended().await;
    assert!(outcome.failures.is_empty(), "{:?}", &outcome.failures[..outcome.failures.len().min(5)]);
    assert!(outcome.answered > 500, "{}", outcome.answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_flight_is_finished_and_the_drain_is_visible() {
    let (backend, gate) = gated("finished").await;
    let mut up = Up::start(backend.address, "");
    let mut stream = TcpStream::connect(up.listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("it arrived", || backend.count() == 1).await;
    up.signal(Signal::SIGTERM);
    while fetch_status(up.admin).await.unwrap().tier.state != "draining" {
        tokio::time::sleep(SECOND / 100).await;
    }
    while TcpStream::connect(up.listen).await.is_ok() {
        tokio::time::sleep(SECOND / 100).await;
    }
    gate.add_permits(1);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("connection: close") && answer.ends_with("finished"), "{answer}");
    assert_eq!(up.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_outlast_the_drain_are_cut() {
    let backend = Backend::serve(|_| async {
        tokio::time::sleep(60 * SECOND).await;
        ok("too late")
    })
    .await;
    let mut up = Up::start(backend.address, "timeouts: {drain: 500ms}");
    let mut stream = TcpStream::connect(up.listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("it arrived", || backend.count() == 1).await;
    let start = Instant::now();
    up.signal(Signal::SIGINT);
    assert_eq!(up.exit_code().await, Some(0));
    assert!(start.elapsed() > SECOND / 2, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_does_not_wait() {
    let backend = Backend::serve(|_| async {
        tokio::time::sleep(60 * SECOND).await;
        ok("too late")
    })
    .await;
    let mut up = Up::start(backend.address, "");
    let mut stream = TcpStream::connect(up.listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("it arrived", || backend.count() == 1).await;
    up.signal(Signal::SIGTERM);
    while fetch_status(up.admin).await.unwrap().tier.state != "draining" {
        tokio::time::sleep(SECOND / 100).await;
    }
    up.signal(Signal::SIGTERM);
    // Within ten seconds, where the drain would take thirty.
    up.exit_code().await;
}

async fn reload(up: &Up) -> String {
    let mut stream = TcpStream::connect(up.admin).await.unwrap();
    stream
        .write_all(b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn admin_page(up: &Up, path: &str) -> String {
    let mut stream = TcpStream::connect(up.admin).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_and_the_api_reload_and_a_bad_file_changes_nothing() {
    let (one, two) = (Backend::text("one").await, Backend::text("two").await);
    let up = Up::start(one.address, "");
    let folder = up.file.parent().unwrap().to_owned();
    write_config(&folder, ANY, two.address, "");
    assert!(reload(&up).await.contains("\"generation\": 2"));
    let mut wire = Wire(TcpStream::connect(up.listen).await.unwrap());
    assert_eq!(wire.get("/").await.1, "two");
    write_config(&folder, ANY, two.address, "queue: {timeout: soon}\nfancy: 1");
    let refused = reload(&up).await;
    assert!(refused.starts_with("HTTP/1.1 422") && refused.contains("queue.timeout: "), "{refused}");
    assert!(refused.contains("fancy: is not a known key"), "{refused}");
    assert_eq!(wire.get("/").await.1, "two");
    let page = admin_page(&up, "/metrics").await;
    assert!(page.contains("flurry_config_last_reload_failed 1\n"), "{page}");
    assert!(page.contains("flurry_config_reloads_total{result=\"refused\"} 1\n"), "{page}");
    write_config(&folder, ANY, one.address, "");
    up.signal(Signal::SIGHUP);
    for _ in 0..200 {
        if admin_page(&up, "/v1/config").await.contains("\"generation\": 3") {
            break;
        }
        tokio::time::sleep(SECOND / 50).await;
    }
    assert_eq!(wire.get("/").await.1, "one");
}
