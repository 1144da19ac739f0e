//! The listener and the threads: one per connection, bounded, because nginx keeps a bounded pool.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::http::{Connection, Incoming, Response};
use crate::identity;
use crate::routes::App;
use crate::settings::{Listen, Settings};

/// Connections beyond this wait in the listener's queue.
const MOST_CONNECTIONS: usize = 512;
/// A connection's thread parses, waits and formats: it needs little.
const STACK: usize = 128 << 10;
const NAP: Duration = Duration::from_millis(5);

/// Serves until the listener fails; returns why.
pub(crate) fn serve(settings: &Settings) -> String {
    let app = Arc::new(App::new(settings.clone()));
    let ended = match &settings.listen {
        Listen::Unix(path) => listen_unix(path).and_then(|l| accept(&app, || l.accept().map(|(s, _)| s))),
        Listen::Tcp(address) => {
            TcpListener::bind(address).and_then(|l| accept(&app, || l.accept().map(|(s, _)| s)))
        }
    };
    match ended {
        Ok(()) => "stopped".into(),
        Err(e) => format!("listening on {:?}: {e}", settings.listen),
    }
}

/// A socket that nginx's user may connect to; one left by an earlier run is replaced.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn accept<S>(app: &Arc<App>, mut next: impl FnMut() -> io::Result<S>) -> io::Result<()>
where
    S: Read + Write + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        while open.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
            thread::sleep(NAP);
        }
        let stream = match next() {
            Ok(stream) => stream,
            Err(e) if passing(&e) => {
                thread::sleep(NAP);
                continue;
            }
            Err(e) => return Err(e),
        };
        let (app, counted) = (Arc::clone(app), Counted::new(&open));
        let run = move || {
            let _counted = counted;
            // The client going away in the middle is its own affair.
            let _ = converse(&app, Connection::new(stream));
        };
        if let Err(e) = thread::Builder::new().stack_size(STACK).spawn(run) {
            eprintln!("flurry-demo: no thread for a connection: {e}");
        }
    }
}

/// A client that gave up, or limits that other connections' ends will lift.
fn passing(error: &io::Error) -> bool {
    let passing = [libc::ECONNABORTED, libc::EINTR, libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}

/// Counts an open connection as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse<S: Read + Write>(app: &App, mut connection: Connection<S>) -> io::Result<()> {
    loop {
        match connection.next()? {
            Incoming::End => return Ok(()),
            Incoming::Bad(status) => {
                let response = Response::refused(status, "not a request that this server takes");
                return connection.answer(&response, &identity::clone_name(), false);
            }
            Incoming::Request(request) => {
                let response = app.answer(&request);
                // After the work: a clone born while it went on answers as itself.
                connection.answer(&response, &identity::clone_name(), request.keep_alive)?;
                if !request.keep_alive {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_kept_connection_over_a_unix_socket_gets_one_answer_after_another() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("socket");
        fs::write(&path, "left by an earlier run").expect("file");
        let text = path.display().to_string();
        let settings =
            Settings::read(|name| (name == "FLURRY_DEMO_LISTEN").then(|| text.clone())).expect("valid");
        thread::spawn(move || serve(&settings));
        let mut stream = (0..400)
            .find_map(|_| UnixStream::connect(&path).map_err(|_| thread::sleep(NAP)).ok())
            .expect("listening within two seconds");
        for _ in 0..2 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            let mut answer = [0; 1024];
            let count = stream.read(&mut answer).expect("answered");
            assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK") && answer[..count].ends_with(b"ok\n"));
        }
    }

    #[test]
    fn an_address_that_cannot_be_listened_on_is_named() {
        let settings =
            Settings::read(|name| (name == "FLURRY_DEMO_LISTEN").then(|| "/nonexistent/socket".into()));
        assert!(serve(&settings.expect("valid")).contains("/nonexistent/socket"));
    }
}
