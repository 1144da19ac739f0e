//! A configuration, and the real `flurry` running with it in a process of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use balancer::admin::fetch_status;
use balancer::admin::status::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client;
use crate::guest_image;
use crate::programs;
use crate::site::Site;
use crate::wait::{LONG, until, until_true};

const ADMIN_LIMIT: Duration = Duration::from_secs(10);

/// The parts of a configuration that tests vary.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the tier.
    pub name: String,
    /// Folder of the guest image.
    pub image: PathBuf,
    /// Port of the guest.
    pub port: u16,
    /// `auto`, `tcg` or `kvm`.
    pub accelerator: &'static str,
    /// The program to use as QEMU, if not the usual one.
    pub qemu: Option<PathBuf>,
    /// As a configuration has it.
    pub boot_deadline: &'static str,
    /// Hollow shells.
    pub shells: u32,
    /// The section `vm.router`, in one line.
    pub router: Option<String>,
    /// Where the engine keeps its files.
    pub state_dir: PathBuf,
    /// Fewest backends, the parent included.
    pub min: u32,
    /// Most backends.
    pub max: u32,
    /// Where the scaler's journal is, if anywhere.
    pub journal: Option<PathBuf>,
    /// What probes ask for.
    pub health_path: &'static str,
    /// Where clients come in.
    pub listen: SocketAddr,
    /// Where status and metrics are.
    pub admin: SocketAddr,
}

impl Config {
    fn yaml(&self, network: &str) -> String {
        let Self { port, accelerator, boot_deadline, shells, min, max, health_path, listen, admin, .. } =
            self;
        let journal = self.journal.as_ref().map(|path| format!("  journal: {}\n", path.display()));
        let qemu = self.qemu.as_ref().map(|path| format!("  qemu: {}\n", path.display()));
        let router = self.router.as_ref().map(|section| format!("  router: {section}\n"));
        format!(
            "name: {}
listen: [{listen}]
admin: {admin}
workers: 1
vm:
  image: {}
  port: {port}
  accelerator: {accelerator}
  boot_deadline: {boot_deadline}
  clone_deadline: 60s
  shells: {shells}
  network: {}
  state_dir: {}
  warm: [{{path: \"/item/{{n}}\", from: 1, to: 20}}]
{}{}scaling:
  min: {min}
  max: {max}
  target_concurrency: 3
  scale_down: {{stabilisation: 3s}}
{}health:
  path: {health_path}
  timeout: 10s
queue:
  timeout: 60s
",
            self.name,
            self.image.display(),
            network,
            self.state_dir.display(),
            qemu.unwrap_or_default(),
            router.unwrap_or_default(),
            journal.unwrap_or_default(),
        )
    }
}

/// A place for a tier: configuration, log, ports.
#[derive(Debug)]
pub struct TierSite {
    site: Site,
    files: TempDir,
    /// What `flurry` is started with.
    pub config: Config,
}

impl TierSite {
    /// With two free ports, the demo image, and one backend at least and at most.
    ///
    /// # Panics
    /// No folder or port is free.
    #[must_use]
    pub fn new(word: &str) -> Self {
        let (site, files) = (Site::new(word), TempDir::new().expect("a temporary folder"));
        let [listen, admin] = free_addresses();
        let config = Config {
            name: site.name().to_owned(),
            image: guest_image::folder(),
            port: 80,
            accelerator: "auto",
            qemu: None,
            boot_deadline: "60s",
            shells: 2,
            router: None,
            state_dir: site.folder().to_owned(),
            min: 1,
            max: 1,
            journal: None,
            health_path: "/healthz",
            listen,
            admin,
        };
        Self { site, files, config }
    }

    /// The place on this host.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// A folder that goes with this.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Starts `flurry up`.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn up(&self) -> Flurry {
        self.up_through(&[])
    }

    /// The same, through a program that runs the rest of its command line.
    ///
    /// # Panics
    /// As for [`TierSite::up`].
    #[must_use]
    pub fn up_through(&self, wrapper: &[&str]) -> Flurry {
        let (yaml, log) = (self.write(), self.files.path().join("log"));
        let program = programs::flurry();
        let mut line = wrapper.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(line.next().expect("a program"));
        command.args(line).arg("up").arg("-c").arg(&yaml);
        let to = File::create(&log).expect("the log is created");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(to);
        let child = command.spawn().expect("flurry is started");
        Flurry { child, log, listen: self.config.listen, admin: self.config.admin }
    }

    /// Writes the configuration; a `flurry` that runs must be told.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self) -> PathBuf {
        let yaml = self.files.path().join("flurry.yaml");
        std::fs::write(&yaml, self.config.yaml(self.site.network())).expect("the configuration is written");
        yaml
    }

    /// Starts it, and waits until it serves and so many backends are ready.
    ///
    /// # Panics
    /// It does not come so far.
    pub async fn serving(&self, backends: u32) -> Flurry {
        let mut flurry = self.up();
        flurry.has_ready(backends).await;
        flurry
    }

    /// Starts it and waits until it has ended by itself; checks that it has left nothing.
    ///
    /// # Panics
    /// It runs on, or has left something.
    pub async fn refuses(&self) -> Ended {
        let ended = self.up().ends().await;
        self.site.assert_nothing_left();
        ended
    }
}

/// Two addresses on which nobody listens, as far as one can know.
fn free_addresses() -> [SocketAddr; 2] {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    [listen(), listen()].map(|listener| listener.local_addr().expect("its address"))
}

/// How `flurry` has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// All that it has said.
    pub log: String,
}

impl Ended {
    /// Checks that it ended with this code.
    ///
    /// # Panics
    /// It did not.
    pub fn assert_code(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{}: {}", self.status, self.log);
    }

    /// Checks the complaint with which it ended: its last line holds all of these.
    ///
    /// # Panics
    /// It does not.
    pub fn assert_complaint(&self, parts: &[&str]) {
        self.assert_code(1);
        let complaint =
            self.log.lines().rev().take_while(|line| !line.contains(" INFO ")).collect::<Vec<_>>();
        let complaint = complaint.join("\n");
        for part in parts {
            assert!(complaint.contains(part), "no {part:?} in its last words: {}", self.log);
        }
    }
}

/// A running `flurry`. Dropping it kills it.
#[derive(Debug)]
pub struct Flurry {
    child: Child,
    log: PathBuf,
    /// Where clients come in.
    pub listen: SocketAddr,
    /// Where status and metrics are.
    pub admin: SocketAddr,
}

impl Flurry {
    /// The status document, as soon as there is one.
    ///
    /// # Panics
    /// There is none in time, or the process has ended.
    pub async fn status(&mut self) -> Status {
        until("there is a status document", LONG, async || {
            self.assert_running();
            fetch_status(self.admin).await.ok()
        })
        .await
    }

    /// Waits for a status document that fits.
    ///
    /// # Panics
    /// None does in time, or the process has ended.
    pub async fn shows(&mut self, what: &str, fits: impl Fn(&Status) -> bool) -> Status {
        until(what, LONG, async || {
            let status = self.status().await;
            fits(&status).then_some(status)
        })
        .await
    }

    /// Waits until the tier serves with exactly so many ready backends.
    ///
    /// # Panics
    /// It does not come so far.
    pub async fn has_ready(&mut self, backends: u32) -> Status {
        let fits = |status: &Status| status.tier.state == "serving" && status.scaling.ready == backends;
        self.shows(&format!("{backends} backends are ready"), fits).await
    }

    /// A page of the admin listener.
    ///
    /// # Panics
    /// It does not answer.
    pub async fn admin_page(&self, path: &str) -> String {
        client::get(self.admin, path, ADMIN_LIMIT).await.expect("the admin listener answers").text()
    }

    /// All that it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it says this.
    ///
    /// # Panics
    /// It does not.
    pub async fn says(&mut self, words: &str) {
        until_true(&format!("the log has {words:?}"), LONG, async || {
            self.assert_running();
            self.said().contains(words)
        })
        .await;
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It has ended.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("flurry runs");
    }

    /// Ends it by SIGTERM; it must clean up.
    ///
    /// # Panics
    /// It does not end well.
    pub async fn stop(self) {
        self.signal(Signal::SIGTERM);
        self.ends().await.assert_code(0);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It goes on.
    pub async fn ends(mut self) -> Ended {
        let status = async || self.child.try_wait().expect("a child of ours");
        let status = until("flurry has ended", LONG + LONG, status).await;
        Ended { status, log: self.said() }
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("a child of ours");
        assert!(ended.is_none(), "flurry has ended ({ended:?}): {}", self.said());
    }
}

impl Drop for Flurry {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- what flurry has said\n{}", self.said());
        }
    }
}
