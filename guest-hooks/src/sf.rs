//! `sf`: SnowFlock's calls for the shell. The agent's program under another name, so that a guest needs no other.
//!
//! ```text
//! set -- $(sf ticket 4)       # TICKET CLONES
//! set -- $(sf clone "$1")     # ID CLONES: the same shell goes on in parent (0) and clones
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use crate::api::SOCKET;

const USAGE: &str = "usage: sf CALL
  ticket N                  ask for N clones; prints TICKET CLONES
  clone TICKET              fork; prints ID CLONES (ID 0: the parent; clones: 1, 2, ...)
  checkpoint                freeze; prints 0 CHECKPOINT, and in clones made of it ID CLONES
  create TICKET CHECKPOINT  make clones of a checkpoint; prints how many there are
  exit STATUS               end this clone
  join TICKET               wait until the ticket's clones have ended; prints ID=STATUS...
  kill TICKET               end the ticket's clones; prints how many that were
  id                        print FLURRY_CLONE_ID FLURRY_CLONES";
/// Far longer than any answer.
const LONGEST_ANSWER: u64 = 4096;

/// Asks, prints the answer, and says by the exit code whether it was one.
pub(crate) fn main(words: &[String]) -> ExitCode {
    if words.is_empty() || words.iter().any(|word| word.starts_with('-')) {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let answer = ask(Path::new(SOCKET), &words.join(" "));
    match answer.as_deref().map(|line| line.split_once(' ').unwrap_or((line, ""))) {
        Ok(("ok", words)) => {
            println!("{words}");
            ExitCode::SUCCESS
        }
        Ok((_, why)) => {
            eprintln!("sf: {why}");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("sf: {why}");
            ExitCode::FAILURE
        }
    }
}

fn ask(socket: &Path, line: &str) -> Result<String, String> {
    let mut stream =
        UnixStream::connect(socket).map_err(|e| format!("no agent at {}: {e}", socket.display()))?;
    stream.write_all(format!("{line}\n").as_bytes()).map_err(|e| format!("asking the agent: {e}"))?;
    let mut answer = String::new();
    let read = BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut answer);
    match read {
        Ok(_) if answer.ends_with('\n') => Ok(answer.trim_end().to_string()),
        Ok(_) => Err("the agent has hung up".into()),
        Err(e) => Err(format!("waiting for the agent: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_line_is_asked_and_the_answer_comes_without_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("api");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let agent = std::thread::spawn(move || {
            let mut heard = String::new();
            for answer in ["ok 3 4\n", "ok 3"] {
                let (mut stream, _) = listener.accept().expect("a process");
                BufReader::new(&stream).read_line(&mut heard).expect("a line");
                stream.write_all(answer.as_bytes()).expect("an answer");
            }
            heard
        });
        assert_eq!(ask(&socket, "ticket 4"), Ok("ok 3 4".into()));
        assert_eq!(ask(&socket, "join 3"), Err("the agent has hung up".into()), "no whole line");
        assert_eq!(agent.join().expect("no panic"), "ticket 4\njoin 3\n");
    }

    #[test]
    fn without_an_agent_the_socket_is_named() {
        let said = ask(Path::new("/nonexistent/api"), "id").expect_err("nobody there");
        assert!(said.contains("/nonexistent/api"), "{said}");
    }
}
