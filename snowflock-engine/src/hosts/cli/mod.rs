//! `sf`: SnowFlock's calls from a shell, answered by SFMD. For people as tables, for programs as JSON.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::certificates::{CertificateFiles, Credentials, Role};
use super::client::Client;
use super::ids::{CheckpointId, Name, TicketId};
use super::message::{Answer, Ask, CloneGoal, CloneWish};
use crate::control::report;
use crate::network::identity::CloneId;

mod table;

/// There is no answer.
const FAILED: u8 = 1;
/// The answer is a refusal.
const REFUSED: u8 = 3;
/// The time was over before it was done.
const UNFINISHED: u8 = 4;

/// SnowFlock's calls: tickets, checkpoints and clones of the hosts of one SFMD.
#[derive(Debug, Parser)]
#[command(name = "sf", version)]
pub struct Sf {
    #[command(flatten)]
    to: To,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    /// How long it may take, seconds.
    #[arg(long, global = true, default_value_t = 60, value_name = "SECONDS")]
    within: u32,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct To {
    /// Where SFMD is.
    #[arg(long, global = true, default_value = "127.0.0.1:7600", value_name = "ADDRESS:PORT")]
    sfmd: SocketAddr,
    /// Folder with authority.pem, operator-NAME.pem and operator-NAME.key.
    #[arg(long, global = true, default_value = "/etc/flurry/certificates", value_name = "FOLDER")]
    certificates: PathBuf,
    /// Which operator's certificate.
    #[arg(long = "as", global = true, default_value = "admin", value_name = "NAME")]
    operator: Name,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get the right to so many clones, or to fewer (sf_request_ticket).
    Ticket {
        /// How many.
        clones: u32,
    },
    /// Freeze the parents as they are now (sf_checkpoint_parent).
    Checkpoint,
    /// Make the clones of a ticket from a checkpoint (sf_create_clones).
    CreateClones {
        /// The ticket's number.
        ticket: u64,
        /// The checkpoint's number.
        checkpoint: u64,
    },
    /// A checkpoint, and the clones of a ticket from it (sf_clone).
    Clone {
        /// The ticket's number.
        ticket: u64,
    },
    /// Wait until all clones of a ticket have ended (sf_join).
    Join {
        /// The ticket's number.
        ticket: u64,
    },
    /// End a ticket and its clones (sf_kill), or one clone (sf_exit).
    Kill {
        /// The ticket's number.
        #[arg(required_unless_present = "clone")]
        ticket: Option<u64>,
        /// End this clone instead.
        #[arg(long, conflicts_with = "ticket", value_name = "ID")]
        clone: Option<u32>,
    },
    /// Hosts, tickets, checkpoints and clones.
    Ps,
    /// All about one of them: host/NAME, ticket/N, checkpoint/N or clone/N.
    Describe {
        /// Which.
        subject: String,
    },
}

/// Runs `sf` with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let sf = Sf::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    runtime.block_on(run(&sf))
}

async fn run(sf: &Sf) -> ExitCode {
    let files = CertificateFiles::within(&sf.to.certificates, &Role::Operator(sf.to.operator.clone()));
    let client = Credentials::load(&files).and_then(|credentials| Client::new(sf.to.sfmd, &credentials));
    let mut client = match client {
        Ok(client) => client,
        Err(error) => return failed(&error),
    };
    let limit = Duration::from_secs(sf.within.into());
    let ask = match &sf.command {
        Command::Clone { ticket } => match client.ask(Ask::Checkpoint, limit).await {
            Ok(Answer::Checkpoint { checkpoint, .. }) => {
                Ask::CreateClones { ticket: TicketId(*ticket), checkpoint }
            }
            Ok(other) => return sf.show(&other),
            Err(error) => return failed(&error),
        },
        other => other.ask(),
    };
    match client.ask(ask, limit).await {
        Ok(answer) => sf.show(&answer),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("sf: {}", report(error));
    ExitCode::from(FAILED)
}

impl Command {
    /// The request; for `clone`, that for its checkpoint.
    fn ask(&self) -> Ask {
        match self {
            Self::Ticket { clones } => Ask::RequestTicket { clones: *clones },
            Self::Checkpoint | Self::Clone { .. } => Ask::Checkpoint,
            Self::CreateClones { ticket, checkpoint } => {
                Ask::CreateClones { ticket: TicketId(*ticket), checkpoint: CheckpointId(*checkpoint) }
            }
            Self::Join { ticket } => Ask::Join { ticket: TicketId(*ticket) },
            Self::Kill { ticket, clone } => match clone {
                Some(clone) => Ask::Advance(CloneWish { clone: CloneId(*clone), goal: CloneGoal::Gone }),
                None => Ask::Kill { ticket: TicketId(ticket.unwrap_or_default()) },
            },
            Self::Ps | Self::Describe { .. } => Ask::View { after: 0 },
        }
    }
}

impl Sf {
    fn show(&self, answer: &Answer) -> ExitCode {
        if let (Command::Describe { subject }, Answer::View(view)) = (&self.command, answer) {
            return match table::describe(view, subject, self.json) {
                Ok(text) => {
                    print!("{text}");
                    ExitCode::SUCCESS
                }
                Err(why) => {
                    eprintln!("sf: {why}");
                    ExitCode::from(REFUSED)
                }
            };
        }
        match answer {
            Answer::Refused { why } => eprintln!("sf: refused: {why}"),
            Answer::Unfinished => eprintln!("sf: not done within {} s; it goes on", self.within),
            answer if self.json => println!("{}", table::json(answer)),
            answer => print!("{}", table::table(answer)),
        }
        match answer {
            Answer::Refused { .. } => ExitCode::from(REFUSED),
            Answer::Unfinished => ExitCode::from(UNFINISHED),
            Answer::Created(made) if made.joined.is_empty() => ExitCode::from(FAILED),
            _ => ExitCode::SUCCESS,
        }
    }
}
