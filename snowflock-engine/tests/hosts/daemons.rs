//! One SFMD and some SFLDs, on loopback or each on a machine of its own, and `sf` to ask them. Whatever
//! is started is ended.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use snowflock_engine::hypervisor::plain::{DISK_FILE, Vcpu};
use snowflock_engine::sys::netns::NamespaceThread;
use snowflock_engine::sys::process::owned_by;

use crate::machines::Machines;
use crate::wire::BadWire;

/// An emulated guest takes its time to boot, on a busy host above all.
const LONG: Duration = Duration::from_secs(120);

/// What a host on a machine of its own is to be.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) parent: bool,
    pub(crate) max_clones: u32,
    /// Whether it fetches all of memory in the end.
    pub(crate) fill: bool,
}

/// What runs the virtual machines, as configurations have it.
const PLAIN: &str = "driver: plain, memory_mib: 4";

/// A cluster of one test.
pub(crate) struct Cluster {
    /// A host whose files have a file system of their own. First: it is mounted in the folder.
    room: Option<(usize, Room)>,
    folder: tempfile::TempDir,
    address: SocketAddr,
    /// None: all on loopback.
    machines: Option<Machines>,
    plans: Vec<Plan>,
    driver: String,
    number: u32,
    sfmd: Option<Child>,
    hosts: Vec<Option<Child>>,
}

impl Cluster {
    /// With so many hosts, all of which are up.
    pub(crate) fn start(hosts: usize) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let plans = vec![Plan { parent: true, max_clones: 4, fill: false }; hosts];
        let mut cluster = Self::new(address, None, plans, PLAIN.to_owned());
        cluster.start_all();
        cluster.sees("all hosts are up", |view| up(view) == hosts);
        cluster
    }

    /// With hosts on machines of their own, all of which are up; SFMD is on the first.
    pub(crate) fn across(plans: &[Plan]) -> Self {
        Self::across_on(PLAIN.to_owned(), plans)
    }

    /// The same on another driver.
    pub(crate) fn across_on(driver: String, plans: &[Plan]) -> Self {
        let address = SocketAddr::new(Machines::address(0).into(), 7600);
        let mut cluster = Self::new(address, Some(Machines::new(plans.len())), plans.to_vec(), driver);
        cluster.start_all();
        let parents = plans.iter().filter(|plan| plan.parent).count();
        let all = |view: &Value| view["hosts"].as_array().map_or(0, Vec::len) == plans.len();
        cluster.sees("all hosts are up", |view| all(view) && up(view) == parents);
        cluster
    }

    /// The same where the last host has so little room for its files, MiB.
    pub(crate) fn with_little_room(plans: &[Plan], mib: u32) -> Self {
        let address = SocketAddr::new(Machines::address(0).into(), 7600);
        let mut cluster = Self::new(address, None, plans.to_vec(), PLAIN.to_owned());
        let host = plans.len() - 1;
        cluster.room = Some((host, Room::new(&cluster.path("room"), mib)));
        // After it: machines see what is mounted then.
        cluster.machines = Some(Machines::new(plans.len()));
        cluster.start_all();
        cluster.sees("all hosts are up", |view| view["hosts"].as_array().map_or(0, Vec::len) == plans.len());
        cluster
    }

    fn new(address: SocketAddr, machines: Option<Machines>, plans: Vec<Plan>, driver: String) -> Self {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let (sfmd, hosts, room) = (None, Vec::new(), None);
        Self { folder, address, machines, plans, driver, number, sfmd, hosts, room }
    }

    fn start_all(&mut self) {
        let hosts = self.plans.len();
        let mut make = Command::new(env!("CARGO_BIN_EXE_sfmd"));
        make.args(["certificates", "--sfmd", "--operator", "admin", "--folder"])
            .arg(self.path("certificates"));
        make.args((0..hosts).map(|host| format!("--host=h{host}")));
        assert!(make.status().unwrap().success());
        self.start_sfmd();
        for host in 0..hosts {
            self.hosts.push(None);
            self.start_host(host);
        }
    }

    /// A program on the machine of a host.
    fn on(&self, host: usize, program: &str) -> Command {
        self.machines
            .as_ref()
            .map_or_else(|| Command::new(program), |machines| machines.command(host, program))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certificates(&self, stem: &str) -> String {
        let file = |name: &str| self.path("certificates").join(name).display().to_string();
        let (authority, certificate, key) =
            (file("authority.pem"), file(&format!("{stem}.pem")), file(&format!("{stem}.key")));
        format!("certificates: {{authority: {authority}, certificate: {certificate}, key: {key}}}\n")
    }

    pub(crate) fn start_sfmd(&mut self) {
        let (listen, state) = (self.address, self.path("sfmd"));
        let text = format!("listen: {listen}\nstate_dir: {}\nlease_seconds: 10\n", state.display());
        std::fs::write(self.path("sfmd.yaml"), text + &self.certificates("sfmd")).unwrap();
        let mut command = self.on(0, env!("CARGO_BIN_EXE_sfmd"));
        self.sfmd = Some(self.spawn(command.arg("--config").arg(self.path("sfmd.yaml")), "sfmd"));
    }

    pub(crate) fn start_host(&mut self, host: usize) {
        let Plan { parent, max_clones, fill } = self.plans[host];
        // Machines of their own have one parent, and one network for all its clones.
        let (place, between) = match &self.machines {
            None => (host as u32, String::new()),
            Some(_) => {
                (0, format!("between_hosts: {{address: {}, fill: {fill}}}\n", Machines::address(host)))
            }
        };
        let (network, driver) = (self.network(place), &self.driver);
        let vm = format!(
            "{between}vm: {{name: {}, parent: {parent}, {driver}, network: {network}.0/24, shells: 1, \
             max_clones: {max_clones}, state_dir: {}}}\n",
            self.vm_name(place),
            self.state_of(host).display()
        );
        let name = format!("sfld-{host}");
        let text = format!("sfmd: {}\n{}{vm}", self.address, self.certificates(&format!("host-h{host}")));
        std::fs::write(self.path(&name), text).unwrap();
        let mut command = self.on(host, env!("CARGO_BIN_EXE_sfld"));
        let child = self.spawn(command.arg("--config").arg(self.path(&name)), &name);
        self.hosts[host] = Some(child);
    }

    fn vm_name(&self, place: u32) -> String {
        format!("s{}-{}-{place}", std::process::id(), self.number)
    }

    /// The first three bytes of addresses.
    fn network(&self, place: u32) -> String {
        format!("10.{}.{}", 96 + self.number * 8 + place, std::process::id() % 256)
    }

    /// An address in the private network of all machines.
    pub(crate) fn address(&self, last: u8) -> String {
        format!("{}.{last}", self.network(0))
    }

    /// Asks a guest for a path, from the parent's host; the body of its answer.
    pub(crate) fn get(&self, address: &str, path: &str) -> std::io::Result<String> {
        let machines = self.machines.as_ref().unwrap();
        let namespace = machines.namespace(0, &format!("flurry-{}", self.vm_name(0)));
        let inside = NamespaceThread::start(&namespace)?;
        let to = SocketAddr::new(address.parse().unwrap(), 80);
        let mut stream = inside.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(2)))??;
        stream.set_read_timeout(Some(LONG))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(std::io::Error::other(answer)),
        }
    }

    fn spawn(&self, command: &mut Command, name: &str) -> Child {
        let log = std::fs::File::options().append(true).create(true).open(self.path(&format!("{name}.log")));
        let libexec = Path::new(env!("CARGO_BIN_EXE_flurry-memtap")).parent().unwrap().to_owned();
        command.env("FLURRY_LIBEXEC", libexec).stdin(Stdio::null()).stderr(log.unwrap()).spawn().unwrap()
    }

    fn state_of(&self, host: usize) -> PathBuf {
        match &self.room {
            Some((of, room)) if *of == host => room.path.join("state"),
            _ => self.path(&format!("state-{host}")),
        }
    }

    /// Runs `sf`.
    pub(crate) fn sf(&self, arguments: &[&str]) -> Output {
        self.sf_command(arguments).output().unwrap()
    }

    fn sf_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.on(0, env!("CARGO_BIN_EXE_sf"));
        command.args(["--sfmd", &self.address.to_string(), "--within", "30", "--certificates"]);
        command.arg(self.path("certificates")).args(arguments);
        command
    }

    /// Starts `sf`, which answers as JSON, and goes on.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = self.sf_command(&[&["--json"], arguments].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs `sf`, which must do what it is told, and reads its answer.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.sf(&[&["--json"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "sf {arguments:?}: {said}{}", self.logs());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until the view is as wanted, and returns it.
    pub(crate) fn sees(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + LONG;
        loop {
            let output = self.sf(&["--json", "ps"]);
            let view: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if wanted(&view) {
                return view;
            }
            assert!(Instant::now() < until, "never: {what}; {view}{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What it takes to run `tc`, `nft` or `ip` on a machine.
    pub(crate) fn on_machine(&self, host: usize, words: &[&str]) {
        self.machines.as_ref().unwrap().run(host, words);
    }

    /// Puts a bad wire between a machine and the switch, for as long as it is held.
    pub(crate) fn spoil(&self, host: usize, seed: u64) -> BadWire {
        self.machines.as_ref().unwrap().spoil(host, seed)
    }

    /// Gives a VM of plain memory a disk, which the next checkpoint freezes.
    pub(crate) fn write_disk(&self, host: usize, vm: &str, content: &[u8]) {
        std::fs::write(self.state_of(host).join(vm).join(DISK_FILE), content).unwrap();
    }

    /// The disks of all checkpoints that a host has copies of.
    pub(crate) fn copied_disks(&self, host: usize) -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(self.state_of(host)).unwrap().flatten();
        let layers = entries.map(|entry| entry.path().join("layer-0"));
        layers.filter(|layer| layer.exists()).map(|layer| std::fs::read(layer).unwrap()).collect()
    }

    /// Unplugs a machine, or plugs it in again.
    pub(crate) fn plug(&self, host: usize, plugged: bool) {
        self.machines.as_ref().unwrap().plug(host, plugged);
    }

    /// Makes pages from and to a host get lost, or come again. The line to SFMD stays.
    pub(crate) fn lose_pages(&self, host: usize, lost: bool) {
        if !lost {
            return self.on_machine(host, &["nft", "delete", "table", "ip", "lost"]);
        }
        self.on_machine(host, &["nft", "add", "table", "ip", "lost"]);
        for hook in ["input", "output"] {
            let chain = format!("{{ type filter hook {hook} priority 0; }}");
            self.on_machine(host, &["nft", "add", "chain", "ip", "lost", hook, &chain]);
            let rule = ["nft", "add", "rule", "ip", "lost", hook, "meta", "l4proto", "udp", "drop"];
            self.on_machine(host, &rule);
        }
    }

    /// Kills SFMD without warning.
    pub(crate) fn kill_sfmd(&mut self) {
        end(self.sfmd.take().unwrap(), Signal::SIGKILL);
    }

    /// Ends one SFLD by a signal.
    pub(crate) fn end_host(&mut self, host: usize, signal: Signal) {
        end(self.hosts[host].take().unwrap(), signal);
    }

    /// A vCPU of a VM of plain memory: of `parent`, or of a clone.
    pub(crate) fn vcpu(&self, host: usize, vm: &str) -> Vcpu {
        self.try_vcpu(host, vm).unwrap()
    }

    /// The same of a VM that may have ended.
    pub(crate) fn try_vcpu(&self, host: usize, vm: &str) -> std::io::Result<Vcpu> {
        Vcpu::connect(&self.state_of(host).join(vm))
    }

    /// Kills the processes of a program on a host without warning; there must be one at least.
    pub(crate) fn kill_program(&self, host: usize, program: &str) {
        assert!(self.kill_any(host, program) > 0, "no {program} runs on h{host}{}", self.logs());
    }

    /// Kills those that there are, and says how many there were.
    pub(crate) fn kill_any(&self, host: usize, program: &str) -> usize {
        let runs = |pid: u32| {
            let path = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            path.file_name().is_some_and(|name| name == program)
        };
        let mut processes = owned_by(&self.state_of(host));
        processes.retain(|process| runs(process.pid));
        for process in &processes {
            // It may be on its way out by itself.
            let _ = kill(Pid::from_raw(process.pid as i32), Signal::SIGKILL);
        }
        processes.len()
    }

    /// Processes of a host's VMs.
    pub(crate) fn processes(&self, host: usize) -> usize {
        owned_by(&self.state_of(host)).len()
    }

    /// Whether a host has anything of a VM.
    pub(crate) fn has(&self, host: usize, vm: &str) -> bool {
        self.state_of(host).join(vm).exists()
    }

    fn logs(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|ending| ending == "log"));
        logs.map(|log| {
            format!("\n--- {:?}\n{}", log.file_name(), std::fs::read_to_string(log.path()).unwrap())
        })
        .collect()
    }

    /// Ends all; nothing may be left.
    pub(crate) fn clear(mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_some() {
                self.end_host(host, Signal::SIGTERM);
            }
            assert_eq!(self.processes(host), 0, "processes are left{}", self.logs());
            assert!(!self.state_of(host).exists(), "the state folder is left{}", self.logs());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for mut child in self.sfmd.take().into_iter().chain(self.hosts.drain(..).flatten()) {
            // A test that has failed: SFLD's VMs end with it or at its next start, never by SIGKILL alone.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

/// A file system of its own, gone with this.
struct Room {
    path: PathBuf,
}

impl Room {
    fn new(path: &Path, mib: u32) -> Self {
        std::fs::create_dir(path).unwrap();
        let room = Self { path: path.to_owned() };
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "room"]).arg(path).status();
        assert!(mounted.unwrap().success());
        room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn end(mut child: Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    let status = child.wait().unwrap();
    assert!(signal == Signal::SIGKILL || status.success(), "{status}");
}

/// Hosts that are up with a parent that runs.
pub(crate) fn up(view: &Value) -> usize {
    let hosts = view["hosts"].as_array().into_iter().flatten();
    hosts.filter(|host| host["state"] == "up" && host["parent"] == "joined").count()
}

/// Clones in this state.
pub(crate) fn clones(view: &Value, state: &str) -> usize {
    view["clones"].as_array().into_iter().flatten().filter(|clone| clone["state"] == state).count()
}

/// Clones that have failed.
pub(crate) fn failed(view: &Value) -> usize {
    view["clones"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|clone| clone["state"]["failed"].is_string())
        .count()
}
