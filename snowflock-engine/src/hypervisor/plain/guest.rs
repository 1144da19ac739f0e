//! The program in a plain VM's process.
//!
//!   control line:  pause, resume, describe, seed     (QEMU's QMP)
//!   shim socket:   hand memory over, adopt an image  (the shim in QEMU)
//!   vcpu socket:   one thread a line                 (vCPUs)
//!
//! The threads of the first two never touch guest memory: a VM whose vCPUs wait
//! for pages can still be helped.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::protocol::{
    AGENT_FD, Answer, CONTROL_FD, Control, Order, RAM_FD, Registers, SHIM_SOCKET, VCPU_SOCKET, Verdict, hear,
    say,
};
use super::{HOOKS_FILE, HOOKS_HELD_FILE, agent, content};
use crate::memory::{PAGE_BYTES, PageIndex};
use crate::shim_protocol::{Reply, Request};
use crate::sys::fdpass::{Channel, Listener, Message};
use crate::sys::memory::SharedWords;
use crate::sys::process::inherited;
use crate::sys::uffd::{Mode, Uffd};

/// Runs a VM until its control line is closed. Arguments: `boot` or `hollow`, bytes of memory, folder.
#[must_use]
pub fn run() -> ExitCode {
    match Machine::from_arguments().and_then(|machine| machine.live()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flurry-plain-vm: {error}; it is started by tests, not by hand");
            ExitCode::FAILURE
        }
    }
}

/// The VM.
pub(super) struct Machine {
    folder: PathBuf,
    hollow: bool,
    bytes: u64,
    memory: OnceLock<SharedWords>,
    registers: Mutex<Registers>,
    /// Whoever runs guest code holds it for reading, one page at a time; a pause holds it for writing.
    running: RwLock<()>,
    handle: Mutex<Handle>,
}

/// What is handed over; kept here so that the userfaultfd is never closed while the VM lives.
#[derive(Default)]
struct Handle {
    uffd: Option<Uffd>,
    file: Option<File>,
}

impl Machine {
    fn from_arguments() -> io::Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [kind, bytes, folder] = &arguments[..] else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "three arguments are needed"));
        };
        let bytes: u64 = bytes.parse().map_err(io::Error::other)?;
        Ok(Self {
            folder: folder.into(),
            hollow: kind == "hollow",
            bytes,
            memory: OnceLock::new(),
            registers: Mutex::default(),
            running: RwLock::new(()),
            handle: Mutex::default(),
        })
    }

    fn live(self) -> io::Result<()> {
        let control = Channel::from(inherited(CONTROL_FD)?);
        let line = UnixStream::from(inherited(AGENT_FD)?);
        if !self.hollow {
            let ram = File::from(inherited(RAM_FD)?);
            self.map(&ram, false)?;
            lock(&self.handle).file = Some(ram);
        }
        let machine = Arc::new(self);
        machine.listen(SHIM_SOCKET, |machine, channel| machine.obey_host(channel))?;
        machine.listen(VCPU_SOCKET, |machine, channel| machine.obey_vcpu(channel))?;
        let for_agent = Arc::clone(&machine);
        std::thread::Builder::new().name("agent".into()).spawn(move || agent::run(&for_agent, line))?;
        machine.obey_driver(&control)
    }

    fn map(&self, file: &File, private: bool) -> io::Result<()> {
        let words = self.bytes as usize / 8;
        let mapped =
            if private { SharedWords::map_private(file, words) } else { SharedWords::map(file, words) };
        self.memory.set(mapped?).map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
    }

    fn register(&self) -> io::Result<Uffd> {
        let uffd = Uffd::open()?;
        let mode = if self.hollow { Mode::MissingAndWriteProtect } else { Mode::WriteProtect };
        uffd.register(self.words()?.address(), self.bytes, mode)?;
        Ok(uffd)
    }

    fn words(&self) -> io::Result<&SharedWords> {
        self.memory.get().ok_or_else(|| io::Error::from_raw_os_error(libc::ENXIO))
    }

    fn listen(self: &Arc<Self>, name: &str, obey: fn(&Self, &Channel)) -> io::Result<()> {
        let listener = Listener::bind(&self.folder.join(name))?;
        let machine = Arc::clone(self);
        let serve = move || {
            while let Ok(channel) = listener.accept() {
                let machine = Arc::clone(&machine);
                if let Err(error) = std::thread::Builder::new().spawn(move || obey(&machine, &channel)) {
                    eprintln!("flurry-plain-vm: no thread for a line: {error}");
                }
            }
        };
        std::thread::Builder::new().name(name.into()).spawn(serve).map(drop)
    }

    /// The driver's line. Its end is the VM's end.
    fn obey_driver(&self, control: &Channel) -> io::Result<()> {
        let gate = || Some(self.running.write().unwrap_or_else(PoisonError::into_inner));
        let mut paused = if self.hollow { gate() } else { None };
        say(control, &Answer::Done)?;
        loop {
            let request = match hear(control) {
                Ok(request) => request,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            };
            let answer = match request {
                Control::Pause => {
                    paused = paused.or_else(gate);
                    Answer::Done
                }
                Control::Resume => {
                    paused = None;
                    Answer::Done
                }
                Control::Describe => Answer::Registers(*lock(&self.registers)),
                Control::Seed(registers) => {
                    *lock(&self.registers) = registers;
                    Answer::Done
                }
            };
            say(control, &answer)?;
        }
    }

    /// The shim's socket.
    fn obey_host(&self, channel: &Channel) {
        while let Ok(message) = channel.receive() {
            if let Err(error) = self.hand_over(channel, message) {
                let errno = error.raw_os_error().unwrap_or(libc::EPROTO);
                if channel.send(&Reply::Failed { errno }.encode(), &[]).is_err() {
                    return;
                }
            }
        }
    }

    fn hand_over(&self, channel: &Channel, message: Message) -> io::Result<()> {
        let mut handle = lock(&self.handle);
        if Request::decode(&message.bytes)? == Request::Adopt {
            let image = message.fds.into_iter().next().map(File::from).ok_or(io::ErrorKind::InvalidInput)?;
            if !self.hollow || image.metadata()?.len() != self.bytes {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            self.map(&image, true)?;
            handle.file = Some(image);
        }
        let address = self.words()?.address();
        if handle.uffd.is_none() {
            handle.uffd = Some(self.register()?);
        }
        let (Some(uffd), Some(file)) = (&handle.uffd, &handle.file) else {
            return Err(io::Error::from_raw_os_error(libc::ENXIO));
        };
        channel.send(&Reply::Region { address, len: self.bytes }.encode(), &[uffd.as_fd(), file.as_fd()])
    }

    /// A vCPU.
    fn obey_vcpu(&self, channel: &Channel) {
        while let Ok(order) = hear(channel) {
            let answer = self.execute(order).unwrap_or_else(|error| Answer::Failed(error.to_string()));
            if say(channel, &answer).is_err() {
                return;
            }
        }
    }

    fn execute(&self, order: Order) -> io::Result<Answer> {
        let pages = (self.bytes / PAGE_BYTES as u64) as u32;
        Ok(match order {
            Order::Write { first, count, order, seed } => {
                for page in content::shuffled(first, count, order) {
                    self.on_page(page, |place, _| Some(content::word(seed, page, place)))?;
                }
                Answer::Done
            }
            Order::Check { first, count, order, seed } => {
                let mut verdict = Verdict { checked: 0, wrong: 0, first_wrong: None };
                for page in content::shuffled(first, count, order) {
                    let mut right = true;
                    self.on_page(page, |place, is| {
                        right &= is == content::word(seed, page, place);
                        None
                    })?;
                    verdict.checked += 1;
                    if !right {
                        verdict.wrong += 1;
                        verdict.first_wrong.get_or_insert(page.0);
                    }
                }
                Answer::Verdict(verdict)
            }
            Order::Sum => {
                let mut sum = 0;
                for page in (0..pages).map(PageIndex) {
                    self.on_page(page, |_, is| {
                        sum = content::mix(sum ^ is);
                        None
                    })?;
                }
                Answer::Sum(sum)
            }
            Order::Run { steps } => {
                for _ in 0..steps {
                    self.step(pages)?;
                }
                Answer::Registers(*lock(&self.registers))
            }
            Order::Registers => Answer::Registers(*lock(&self.registers)),
        })
    }

    /// One step of the built-in program.
    fn step(&self, pages: u32) -> io::Result<()> {
        let _running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let mut registers = lock(&self.registers);
        let accumulator = content::mix(registers.accumulator);
        let places = u64::from(pages) * content::PAGE_WORDS as u64;
        let word = &self.words()?.words()[(accumulator % places) as usize];
        let sum = word.load(Ordering::Relaxed) ^ accumulator;
        word.store(sum, Ordering::Relaxed);
        *registers = Registers { accumulator: content::mix(sum), steps: registers.steps + 1 };
        Ok(())
    }

    /// Goes through the words of a page while the VM runs; what `each` returns is written.
    pub(super) fn on_page(
        &self,
        page: PageIndex,
        mut each: impl FnMut(usize, u64) -> Option<u64>,
    ) -> io::Result<()> {
        let _running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let start = page.0 as usize * content::PAGE_WORDS;
        let words = self.words()?.words().get(start..start + content::PAGE_WORDS);
        let words = words.ok_or_else(|| io::Error::other(format!("no page {} in this VM", page.0)))?;
        for (place, word) in words.iter().enumerate() {
            if let Some(new) = each(place, word.load(Ordering::Relaxed)) {
                word.store(new, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Hooks would run now.
    pub(super) fn note_hooks(&self, event: &str) -> io::Result<()> {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        while self.folder.with_file_name(HOOKS_HELD_FILE).exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let file = self.folder.with_file_name(HOOKS_FILE);
        let mut file = File::options().create(true).append(true).open(file)?;
        file.write_all(format!("{name} {event}\n").as_bytes())
    }

    /// The page that the agent keeps its identity in: the last one.
    pub(super) fn agent_page(&self) -> PageIndex {
        PageIndex((self.bytes / PAGE_BYTES as u64).saturating_sub(1) as u32)
    }

    /// Whether it began as a shell.
    pub(super) fn is_hollow(&self) -> bool {
        self.hollow
    }

    /// Waits while the VM is paused.
    pub(super) fn wait_until_it_runs(&self) {
        drop(self.running.read().unwrap_or_else(PoisonError::into_inner));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For messages only.
impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folder: &Path = &self.folder;
        f.debug_struct("Machine").field("folder", &folder).finish_non_exhaustive()
    }
}
