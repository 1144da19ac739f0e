//! The lines between a process and the agent: words and decimal numbers. `CONTRACT.md` lists them.

use std::fmt::Write as _;

use snowflock_engine::wire::Identity;
use snowflock_engine::wire::api::{Answer, Call};

/// What a process asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Something that the host does.
    Call(Call),
    /// Who this guest is, which the agent knows.
    Id,
}

/// Reads a line without its end.
pub(super) fn parse(line: &str) -> Result<Request, &'static str> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |word: &str| word.parse::<u32>().map_err(|_| "a number from 0 to 4294967295 is expected");
    Ok(Request::Call(match words[..] {
        ["id"] => return Ok(Request::Id),
        ["checkpoint"] => Call::Checkpoint,
        ["ticket", wanted] => Call::RequestTicket(number(wanted)?),
        ["clone", ticket] => Call::Clone(number(ticket)?),
        ["create", ticket, checkpoint] => {
            Call::Create { ticket: number(ticket)?, checkpoint: number(checkpoint)? }
        }
        ["exit", status] => Call::Exit(number(status)?),
        ["join", ticket] => Call::Join(number(ticket)?),
        ["kill", ticket] => Call::Kill(number(ticket)?),
        _ => return Err("no such call; see CONTRACT.md"),
    }))
}

/// The host's answer, for the process that waits for it.
pub(super) fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Ticket { ticket, clones } => format!("ok {ticket} {clones}\n"),
        Answer::Forked(number) => format!("ok 0 {number}\n"),
        Answer::Done(number) => format!("ok {number}\n"),
        Answer::Ended(ends) => {
            let mut text = String::from("ok");
            for end in ends.iter() {
                let status = end.status.map_or_else(|| "-".into(), |status| status.to_string());
                // Writing into a String cannot fail.
                let _ = write!(text, " {}={status}", end.place);
            }
            text + "\n"
        }
        Answer::Refused(why) => error(why.as_str()),
    }
}

/// A forking call returns in a clone.
pub(super) fn born(place: u32, clones: u32) -> String {
    format!("ok {place} {clones}\n")
}

/// Who this guest is.
pub(super) fn id(identity: Option<&Identity>) -> String {
    identity.map_or_else(
        || error("the host has given no identity yet"),
        |i| format!("ok {} {}\n", i.clone_id, i.clones),
    )
}

/// A refusal, on one line whatever it holds.
pub(super) fn error(why: &str) -> String {
    let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("error {why}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use snowflock_engine::wire::api::{End, Ends};

    #[test]
    fn each_call_has_its_words() {
        for (line, call) in [
            ("ticket 4", Call::RequestTicket(4)),
            ("clone 1", Call::Clone(1)),
            ("checkpoint", Call::Checkpoint),
            ("create 1 2", Call::Create { ticket: 1, checkpoint: 2 }),
            (" exit  4294967295 ", Call::Exit(u32::MAX)),
            ("join 1", Call::Join(1)),
            ("kill 1", Call::Kill(1)),
        ] {
            assert_eq!(parse(line), Ok(Request::Call(call)));
        }
        assert_eq!(parse("id"), Ok(Request::Id));
    }

    #[test]
    fn other_words_and_numbers_out_of_range_are_refused() {
        for line in ["", "ticket", "ticket 4 5", "TICKET 4", "rm -rf /", "clone -1", "exit 4294967296"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn an_answer_is_one_line() {
        let ends = [End { place: 1, status: Some(25) }, End { place: 2, status: None }];
        for (given, line) in [
            (Answer::Ticket { ticket: 3, clones: 4 }, "ok 3 4\n"),
            (Answer::Forked(4), "ok 0 4\n"),
            (Answer::Done(2), "ok 2\n"),
            (Answer::Ended(Ends::of(ends)), "ok 1=25 2=-\n"),
            (Answer::refused("no\nroom"), "error no room\n"),
        ] {
            assert_eq!(answer(&given), line);
        }
    }
}
