//! Running the programs of the build, and saying well what went wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::ImageError;

/// How much of a failed program's error output is shown.
const TAIL_LINES: usize = 15;

/// Fails with all of these programs that are not on the search path. Pairs: program, its Debian package.
pub(crate) fn require(programs: &[(&str, &str)]) -> Result<(), ImageError> {
    let missing: Vec<_> = programs.iter().filter(|(program, _)| find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ImageError::MissingPrograms {
        programs: missing.iter().map(|(program, _)| (*program).into()).collect(),
        packages: missing.iter().map(|(_, package)| (*package).into()).collect(),
    })
}

/// Looks for an executable on `PATH` and where Debian keeps root's programs.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let executable =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    places.map(|place| place.join(program)).find(executable)
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, with: impl FnOnce(&mut Command)) -> Result<(), ImageError> {
    output(program, with).map(drop)
}

/// Runs a program to its end and returns what it wrote to its standard output.
pub(crate) fn output(program: &str, with: impl FnOnce(&mut Command)) -> Result<Vec<u8>, ImageError> {
    let failed = |status: String, tail: String| ImageError::Failed { program: program.into(), status, tail };
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    with(&mut command);
    let output = command
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed("could not be started".into(), e.to_string()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(output.status.to_string(), tail(&String::from_utf8_lossy(&output.stderr))))
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_missing_programs_are_named_at_once_with_their_packages() {
        let wanted = [("sh", "dash"), ("no-such-program-1", "pkg-one"), ("no-such-program-2", "pkg-two")];
        let said = require(&wanted).expect_err("two are missing").to_string();
        assert_eq!(
            said,
            "not installed: no-such-program-1, no-such-program-2; remedy: apt-get install pkg-one pkg-two"
        );
    }

    #[test]
    fn a_failed_program_is_quoted_with_the_end_of_what_it_said() {
        let said = run("sh", |c| {
            c.args(["-c", "seq 1 40 >&2; exit 7"]);
        });
        let said = said.expect_err("it failed").to_string();
        assert!(
            said.contains("exit status: 7") && said.ends_with("\n39\n40") && !said.contains("\n25\n"),
            "{said}"
        );
    }
}
