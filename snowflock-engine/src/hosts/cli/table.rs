//! Answers as text.

use std::fmt::Write as _;

use serde::Serialize;

use crate::control::LifeState;
use crate::hosts::message::Answer;
use crate::hosts::view::View;

/// An answer as one line of JSON: what it holds, without its name.
pub(super) fn json(answer: &Answer) -> String {
    let value = serde_json::to_value(answer).unwrap_or_default();
    match value {
        serde_json::Value::Object(map) if map.len() == 1 => {
            map.into_iter().next().map(|(_, inner)| inner).unwrap_or_default().to_string()
        }
        other => other.to_string(),
    }
}

/// An answer for people.
pub(super) fn table(answer: &Answer) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_answer(&mut out, answer);
    out
}

fn write_answer(out: &mut String, answer: &Answer) -> std::fmt::Result {
    match answer {
        Answer::Ticket { ticket, clones } => {
            writeln!(out, "{ticket}: {} clones promised", clones.len())?;
            clones.iter().try_for_each(|(clone, host)| writeln!(out, "  {clone} on {host}"))
        }
        Answer::Checkpoint { checkpoint, hosts } => {
            let hosts: Vec<&str> = hosts.iter().map(crate::hosts::ids::Name::as_str).collect();
            writeln!(out, "{checkpoint} on {}", hosts.join(", "))
        }
        Answer::Created(made) => {
            writeln!(out, "{} clones joined, {} failed", made.joined.len(), made.failed.len())?;
            made.joined.iter().try_for_each(|clone| writeln!(out, "  {clone}"))?;
            made.failed.iter().try_for_each(|(clone, why)| writeln!(out, "  {clone} failed: {why}"))
        }
        Answer::Done => writeln!(out, "done"),
        Answer::View(view) => write_view(out, view),
        Answer::Refused { why } => writeln!(out, "refused: {why}"),
        Answer::Unfinished => writeln!(out, "not done yet"),
    }
}

fn write_view(out: &mut String, view: &View) -> std::fmt::Result {
    let header = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let hosts = view.hosts.iter().map(|host| {
        let parent = host.parent.as_ref().map_or_else(|| "-".into(), LifeState::to_string);
        let room = format!("{} of {}", host.room.free, host.room.limit);
        vec![host.name.to_string(), word(&host.state), room, parent]
    });
    write_rows(out, std::iter::once(header(&["HOST", "STATE", "FREE", "PARENT"])).chain(hosts))?;
    let tickets = view.tickets.iter().map(|ticket| {
        let from = ticket.checkpoint.map_or_else(|| "-".into(), |from| from.0.to_string());
        let job = ticket.job.clone().unwrap_or_else(|| "-".into());
        vec![ticket.id.0.to_string(), ticket.wanted.to_string(), word(&ticket.stage), from, job]
    });
    write_rows(out, std::iter::once(header(&["TICKET", "WANTED", "STAGE", "FROM", "JOB"])).chain(tickets))?;
    let clones = view.clones.iter().map(|clone| {
        let address = clone.ipv4.map_or_else(|| "-".into(), |ipv4| ipv4.to_string());
        let state = match &clone.state {
            LifeState::Failed(why) => format!("failed: {why}"),
            state => state.to_string(),
        };
        vec![clone.id.0.to_string(), clone.ticket.0.to_string(), clone.host.to_string(), address, state]
    });
    write_rows(out, std::iter::once(header(&["CLONE", "TICKET", "HOST", "ADDRESS", "STATE"])).chain(clones))
}

/// The word that stands for a value in messages.
fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn write_rows(out: &mut String, rows: impl Iterator<Item = Vec<String>>) -> std::fmt::Result {
    let rows: Vec<Vec<String>> = rows.collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            write!(line, "{cell:<width$}  ", width = width(column))?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// All about one subject.
///
/// # Errors
/// There is none, or it is not named as it should be.
pub(super) fn describe(view: &View, subject: &str, json: bool) -> Result<String, String> {
    let none = || format!("there is no {subject}; sf ps shows what there is");
    let (kind, name) =
        subject.split_once('/').ok_or("name it as host/NAME, ticket/N, checkpoint/N or clone/N")?;
    let number = || name.parse::<u64>().map_err(|_| format!("{name:?} is not a number"));
    let found = match kind {
        "host" => view.hosts.iter().find(|host| host.name.as_str() == name).map(serde_json::to_value),
        "ticket" => {
            let id = number()?;
            view.tickets.iter().find(|ticket| ticket.id.0 == id).map(serde_json::to_value)
        }
        "checkpoint" => {
            let id = number()?;
            view.checkpoints.iter().find(|checkpoint| checkpoint.id.0 == id).map(serde_json::to_value)
        }
        "clone" => {
            let id = number()?;
            view.clones.iter().find(|clone| u64::from(clone.id.0) == id).map(serde_json::to_value)
        }
        _ => return Err(format!("{kind:?} is not one of host, ticket, checkpoint, clone")),
    };
    let value = found.ok_or_else(none)?.map_err(|error| error.to_string())?;
    if json {
        return Ok(format!("{value}\n"));
    }
    let fields = value.as_object().into_iter().flatten();
    let shown = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = String::new();
    let rows = fields.map(|(key, value)| vec![key.clone(), shown(value)]);
    write_rows(&mut out, rows).map_err(|error| error.to_string())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::ids::{Epoch, TicketId};
    use crate::hosts::message::{Made, Room};
    use crate::hosts::view::{CloneView, HostState, HostView, StageView, TicketView};
    use crate::network::identity::CloneId;

    fn view() -> View {
        let host = HostView {
            name: "rack-1".parse().unwrap(),
            epoch: Epoch(2),
            state: HostState::Up,
            room: Room { limit: 8, free: 7, ids: 200 },
            parent: Some(LifeState::Joined),
        };
        let clone = CloneView {
            id: CloneId(5),
            host: host.name.clone(),
            ticket: TicketId(3),
            state: LifeState::Failed("its VM has ended by itself".into()),
            ipv4: Some([10, 1, 0, 8].into()),
        };
        let stage = StageView::Granted;
        let ticket = TicketView { id: TicketId(3), wanted: 1, stage, checkpoint: None, job: None };
        View { number: 9, hosts: vec![host], tickets: vec![ticket], checkpoints: vec![], clones: vec![clone] }
    }

    #[test]
    fn the_view_is_three_tables() {
        let wanted = "\
HOST    STATE  FREE    PARENT
rack-1  up     7 of 8  joined
TICKET  WANTED  STAGE    FROM  JOB
3       1       granted  -     -
CLONE  TICKET  HOST    ADDRESS   STATE
5      3       rack-1  10.1.0.8  failed: its VM has ended by itself
";
        assert_eq!(table(&Answer::View(view())), wanted);
    }

    #[test]
    fn an_answer_as_json_is_what_it_holds() {
        let made = Made { joined: vec![CloneId(1)], failed: vec![] };
        assert_eq!(json(&Answer::Created(made)), r#"{"failed":[],"joined":[1]}"#);
        assert_eq!(json(&Answer::Done), "\"done\"");
    }

    #[test]
    fn one_subject_is_described_and_a_wrong_name_is_told() {
        let told = describe(&view(), "host/rack-1", false).unwrap();
        assert!(told.contains("epoch") && told.contains("rack-1"), "{told}");
        assert!(describe(&view(), "clone/5", true).unwrap().starts_with("{\"host\""));
        for (subject, why) in [
            ("clone/6", "there is no clone/6"),
            ("clone", "name it as"),
            ("vm/1", "is not one of"),
            ("ticket/x", "not a number"),
        ] {
            assert!(describe(&view(), subject, false).unwrap_err().contains(why), "{subject}");
        }
    }
}
