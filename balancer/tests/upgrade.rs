//! The running program is replaced by another one: real processes, real load.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// A `flurry up` and whatever takes over from it. All of them are killed in the end.
struct Generations {
    site: Site,
    /// What is started: a link, so that it can lead elsewhere.
    program: PathBuf,
    first: Child,
    processes: Vec<u32>,
    admin: SocketAddr,
}

impl Drop for Generations {
    fn drop(&mut self) {
        for process in &self.processes {
            // Those that have ended are what is wanted. None of these IDs is of anybody else: the
            // processes are of this test, and it ends before IDs come round again.
            let _ = kill(Pid::from_raw(*process as i32), Signal::SIGKILL);
        }
        let _ = self.first.wait();
    }
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Generations {
    async fn start(config: &str) -> Self {
        let site = Site::new();
        site.certificate("shop.test");
        let program = site.folder.path().join("flurry");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_flurry"), &program).unwrap();
        let admin = free_port();
        let config = config.replace("FOLDER", &site.folder.path().display().to_string());
        site.write("flurry.yaml", format!("admin: {admin}\n{config}\n"));
        let first = Command::new(&program)
            .args(["up", "-c", &site.path("flurry.yaml")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let flurry = Self { processes: vec![first.id()], site, program, first, admin };
        flurry.ready().await;
        flurry
    }

    async fn ready(&self) {
        for _ in 0..1000 {
            if self.page("/readyz").await.is_some_and(|page| page.ends_with("ready\n")) {
                return;
            }
            tokio::time::sleep(SECOND / 100).await;
        }
        panic!("not ready within ten seconds");
    }

    async fn page(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await.ok()?;
        Some(page)
    }

    fn serving(&self) -> u32 {
        *self.processes.last().unwrap()
    }

    async fn upgrade(&mut self) -> Output {
        let admin = self.admin.to_string();
        let ran = tokio::task::spawn_blocking(move || {
            Command::new(env!("CARGO_BIN_EXE_flurry")).args(["upgrade", "--admin", &admin]).output().unwrap()
        });
        let output = ran.await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(process) = said.strip_prefix("process ").and_then(|it| it.split(' ').next()) {
            self.processes.push(process.parse().unwrap());
        }
        output
    }

    async fn gone(&self, process: u32) {
        // The first one is our child, and stays a zombie until it is waited for.
        let stat = format!("/proc/{process}/stat");
        for _ in 0..2000 {
            match std::fs::read_to_string(&stat) {
                Ok(stat) if !stat.contains(") Z ") => {}
                _ => return,
            }
            tokio::time::sleep(SECOND / 100).await;
        }
        panic!("process {process} did not end within twenty seconds");
    }
}

/// A client with a new connection for every request, over TLS or not; returns its failures.
async fn new_connections(target: SocketAddr, tls: Option<tokio_rustls::TlsConnector>, stop: Stop) -> Outcome {
    let mut outcome = Outcome::default();
    while !*stop.borrow() {
        match one(target, tls.as_ref()).await {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello") => {
                outcome.answered += 1;
            }
            Ok(answer) => outcome.failures.push(format!("answered {answer:?}")),
            Err(error) => outcome.failures.push(format!("{error:?}")),
        }
    }
    outcome
}

type Stop = tokio::sync::watch::Receiver<bool>;

async fn one(target: SocketAddr, tls: Option<&tokio_rustls::TlsConnector>) -> std::io::Result<String> {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    let mut stream = TcpStream::connect(target).await?;
    match tls {
        None => {
            stream.write_all(REQUEST).await?;
            stream.read_to_string(&mut answer).await?;
        }
        Some(tls) => {
            let mut stream = tls.connect("shop.test".try_into().unwrap(), stream).await?;
            stream.write_all(REQUEST).await?;
            stream.read_to_string(&mut answer).await?;
        }
    }
    Ok(answer)
}

fn connector(flurry: &Generations) -> tokio_rustls::TlsConnector {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(flurry.site.path("shop.test.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    std::sync::Arc::new(config).into()
}

/// A client that asks over HTTP/2 until it is told that the connection ends, then over another one.
async fn http2(target: SocketAddr, stop: Stop) -> Outcome {
    let mut outcome = Outcome::default();
    'connect: while !*stop.borrow() {
        let stream = TcpStream::connect(target).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        while !*stop.borrow() {
            match sender.ready().await {
                Ok(ready) => sender = ready,
                // GOAWAY without an error: nothing was asked.
                Err(_) => continue 'connect,
            }
            let request = http::Request::get("http://shop.test/").body(()).unwrap();
            let answered = match sender.send_request(request, true) {
                Ok((answer, _)) => answer.await,
                Err(_) => continue 'connect,
            };
            match answered {
                Ok(answer) if answer.status() == 200 => outcome.answered += 1,
                Ok(answer) => outcome.failures.push(format!("answered {}", answer.status())),
                // It is told which requests were not looked at; they are to be sent again.
                Err(error) if error.is_go_away() => continue 'connect,
                Err(error) => outcome.failures.push(format!("{error:?}")),
            }
        }
    }
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_upgrades_under_load_lose_no_request_and_refuse_no_connection() {
    let backend = Backend::text("hello").await;
    let [plain, secure] = [free_port(), free_port()];
    let mut flurry = Generations::start(&format!(
        "listen: ['{plain}', 'unix:FOLDER/web.sock', {{address: '{secure}', tls: {{certificates: [{{chain: FOLDER/shop.test.pem, key: FOLDER/shop.test.key}}]}}}}]\nworkers: 2\nbackends: ['{}']",
        backend.address
    ))
    .await;
    let tls = connector(&flurry);
    let stop = tokio::sync::watch::Sender::new(false);
    let kept = Load::start(plain, 4);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..2 {
        clients.spawn(new_connections(plain, None, stop.subscribe()));
        clients.spawn(new_connections(secure, Some(tls.clone()), stop.subscribe()));
        clients.spawn(http2(plain, stop.subscribe()));
    }
    for round in 0..10 {
        let old = flurry.serving();
        // Another number of workers has other sockets; none may be forgotten.
        let workers = [2, 3, 1][round % 3];
        let text = std::fs::read_to_string(flurry.site.path("flurry.yaml")).unwrap();
        let text: Vec<String> = text
            .lines()
            .map(|it| if it.starts_with("workers:") { format!("workers: {workers}") } else { it.to_owned() })
            .collect();
        flurry.site.write("flurry.yaml", text.join("\n"));
        let output = flurry.upgrade().await;
        assert!(output.status.success(), "{output:?}");
        assert_ne!(flurry.serving(), old);
        flurry.gone(old).await;
    }
    assert!(flurry.page("/v1/config").await.unwrap().contains(&format!("\"pid\": {}", flurry.serving())));
    let mut unix = UnixStream::connect(flurry.site.path("web.sock")).await.unwrap();
    unix.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    unix.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    stop.send_replace(true);
    let mut all = vec![kept.stop().await];
    all.extend(clients.join_all().await);
    for outcome in all {
        assert_eq!(outcome.failures, Vec::<String>::new());
        assert!(outcome.answered > 50, "{}", outcome.answered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_program_that_cannot_run_leaves_the_old_one_as_it_was() {
    let backend = Backend::text("hello").await;
    let plain = free_port();
    let mut flurry = Generations::start(&format!(
        "listen: ['{plain}', 'unix:FOLDER/web.sock']\nworkers: 2\nbackends: ['{}']",
        backend.address
    ))
    .await;
    let good = std::fs::read_to_string(flurry.site.path("flurry.yaml")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("listen: ['{}', ", taken.local_addr().unwrap());
    let vms = good.replace(
        "backends:",
        &format!(
            "vm: {{image: {}, memory_mib: 256}}\nscaling: {{max: 2, target_concurrency: 4}}\n#",
            flurry.site.folder.path().display()
        ),
    );
    for (text, why) in [
        (format!("{good}queue: {{timeout: soon}}\n"), "queue.timeout: "),
        (good.replace("listen: [", &taken), "another program listens there"),
        (vms, "vm: a tier of VMs cannot take over"),
    ] {
        flurry.site.write("flurry.yaml", text);
        let output = flurry.upgrade().await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(why), "{said}");
    }
    flurry.site.write("flurry.yaml", &good);
    std::fs::remove_file(&flurry.program).unwrap();
    flurry.site.write("broken", "#!/bin/sh\nexit 7\n");
    std::fs::set_permissions(flurry.site.path("broken"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    std::os::unix::fs::symlink(flurry.site.path("broken"), &flurry.program).unwrap();
    kill(Pid::from_raw(flurry.serving() as i32), Signal::SIGUSR2).unwrap();
    for _ in 0..500 {
        if flurry.page("/v1/config").await.unwrap().contains("exit status: 7") {
            break;
        }
        tokio::time::sleep(SECOND / 50).await;
    }
    let page = flurry.page("/v1/config").await.unwrap();
    assert!(page.contains("exit status: 7") && page.contains("\"failed\": 4"), "{page}");
    let metrics = flurry.page("/metrics").await.unwrap();
    assert!(metrics.contains("flurry_upgrades_failed_total 4\n"), "{metrics}");
    assert!(metrics.contains("flurry_upgrade_last_failed 1\n"), "{metrics}");
    assert!(one(plain, None).await.unwrap().ends_with("hello"));
    assert!(UnixStream::connect(flurry.site.path("web.sock")).await.is_ok());
    // The old program can still be replaced by a good one.
    std::fs::remove_file(&flurry.program).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_flurry"), &flurry.program).unwrap();
    let old = flurry.serving();
    let output = flurry.upgrade().await;
    assert!(output.status.success(), "{output:?}");
    flurry.gone(old).await;
    assert!(one(plain, None).await.unwrap().ends_with("hello"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_is_told_which_process_it_is_now() {
    let backend = Backend::text("hello").await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(10 * SECOND)).unwrap();
    let file = folder.path().join("flurry.yaml");
    let text = format!("listen: ['127.0.0.1:0']\nadmin: 127.0.0.1:0\nbackends: ['{}']\n", backend.address);
    std::fs::write(&file, text).unwrap();
    let mut old = Command::new(env!("CARGO_BIN_EXE_flurry"))
        .args(["up", "-c", file.to_str().unwrap()])
        .env("NOTIFY_SOCKET", &socket)
        .spawn()
        .unwrap();
    let said = || {
        let mut room = [0; 64];
        let length = manager.recv(&mut room).unwrap();
        String::from_utf8_lossy(&room[..length]).into_owned()
    };
    assert_eq!(said(), "READY=1");
    kill(Pid::from_raw(old.id() as i32), Signal::SIGUSR2).unwrap();
    let mut words = [said(), said()];
    words.sort();
    assert_eq!(words[1], "READY=1", "the new one, too");
    let new: i32 = words[0].strip_prefix("MAINPID=").unwrap().parse().unwrap();
    assert_eq!(old.wait().unwrap().code(), Some(0));
    kill(Pid::from_raw(new), Signal::SIGTERM).unwrap();
}
