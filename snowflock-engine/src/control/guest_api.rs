//! SnowFlock's calls from inside a guest: who may ask for what, and its doing.
//!
//!   call -> admitted by the book, or refused -> done through the engine's own calls -> answered
//!
//! A user of [`Engine`] like any other, on a thread of its own: the owner never waits for a guest, and a
//! guest that asks for too much is refused here. The book holds who has which ticket; what a guest says
//! of itself counts for nothing.

use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use super::{CheckpointId, Engine, EngineError, TicketAnswer, TicketId, report};
use crate::agent::{Called, ReplyLine};
use crate::network::identity::CloneId;
use crate::wire::RequestId;
use crate::wire::api::Answer;

mod book;

use book::{Admitted, Book};

/// Calls that wait to be looked at; a guest is told to try again when there are more.
pub(super) const WAITING: usize = 64;

/// So long a call waits for another fork of the same VM to be over.
const FORK_PATIENCE: Duration = Duration::from_secs(10);
/// And looks again after this.
const FORK_AGAIN: Duration = Duration::from_millis(50);

/// Serves the calls of an engine's guests until all lines to guests are gone.
pub(super) fn start(engine: Engine, clones: u32, calls: Receiver<Called>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let desk = Desk { engine, book: Book::new(clones, Instant::now()), tasks: JoinSet::new() };
    std::thread::Builder::new()
        .name("guest-api".into())
        .spawn(move || runtime.block_on(desk.serve(calls)))?;
    Ok(())
}

struct Desk {
    engine: Engine,
    book: Book,
    tasks: JoinSet<Finished>,
}

/// A call that took its time.
struct Finished {
    call: Admitted,
    request: RequestId,
    reply: ReplyLine,
    result: Result<Outcome, EngineError>,
}

/// What became of it.
enum Outcome {
    /// A ticket for these clones.
    Ticket(TicketId, Vec<CloneId>),
    /// No ticket, and why.
    NoTicket(String),
    /// The number to tell.
    Number(u32),
    /// Nothing is to be told: the caller is gone, or its book says the rest.
    Nothing,
}

impl Desk {
    async fn serve(mut self, mut calls: Receiver<Called>) {
        loop {
            tokio::select! {
                called = calls.recv() => match called {
                    Some(called) => self.take(called),
                    None => return,
                },
                Some(finished) = self.tasks.join_next() => {
                    if let Ok(finished) = finished {
                        self.finish(finished);
                    }
                }
            }
        }
    }

    fn take(&mut self, called: Called) {
        let Called { from, request, call, reply } = called;
        let lives =
            |id: CloneId| self.engine.view().borrow().clone_with(id).is_some_and(|c| c.state.is_alive());
        let admitted = match self.book.admit(from, call, Instant::now(), lives) {
            Ok(admitted) => admitted,
            Err(why) => return reply.answer(request, Answer::refused(&why.to_string())),
        };
        tracing::info!(vm = %from, ?call, "a call of a guest");
        let engine = self.engine.clone();
        self.tasks.spawn(async move {
            let result = carry_out(&engine, from, request, &admitted).await;
            Finished { call: admitted, request, reply, result }
        });
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { call, request, reply, result } = finished;
        self.book.finished(&call);
        let answer = match result {
            Ok(Outcome::Ticket(ticket, clones)) => {
                let count = clones.len() as u32;
                self.book.granted(ticket, clones);
                Answer::Ticket { ticket: ticket.0, clones: count }
            }
            Ok(Outcome::NoTicket(why)) => Answer::refused(&why),
            Ok(Outcome::Number(number)) => self.number(&call, number),
            Ok(Outcome::Nothing) => match call {
                Admitted::Join(ticket) => Answer::Ended(self.book.joined(ticket)),
                _ => return,
            },
            Err(error) => {
                let why = report(&error);
                tracing::warn!(?call, why, "a call of a guest has failed");
                Answer::refused(&why)
            }
        };
        reply.answer(request, answer);
    }

    fn number(&mut self, call: &Admitted, number: u32) -> Answer {
        match call {
            Admitted::Clone(_) => Answer::Forked(number),
            Admitted::Checkpoint => {
                self.book.checkpointed(number);
                Answer::Forked(number)
            }
            _ => Answer::Done(number),
        }
    }
}

async fn carry_out(
    engine: &Engine,
    from: CloneId,
    request: RequestId,
    call: &Admitted,
) -> Result<Outcome, EngineError> {
    match call {
        Admitted::RequestTicket(wanted) => Ok(match engine.sf_request_ticket(*wanted).await? {
            TicketAnswer::Granted(ticket) => Outcome::Ticket(ticket.id, ticket.clones),
            TicketAnswer::Refused(why) => Outcome::NoTicket(why.to_string()),
        }),
        Admitted::Clone(ticket) => {
            let forked = async {
                let checkpoint = checkpoint(engine, from, request).await?;
                engine.sf_create_clones(*ticket, checkpoint).await
            };
            match forked.await {
                Ok(created) => Ok(Outcome::Number(created.joined.len() as u32)),
                Err(error) => {
                    // A ticket counts as used, so nobody would give its places back.
                    let _ = engine.sf_kill(*ticket).await;
                    Err(error)
                }
            }
        }
        Admitted::Checkpoint => checkpoint(engine, from, request).await.map(|id| Outcome::Number(id.0)),
        Admitted::Create(ticket, checkpoint) => {
            let created = engine.sf_create_clones(*ticket, *checkpoint).await?;
            Ok(Outcome::Number(created.joined.len() as u32))
        }
        Admitted::Exit => engine.sf_exit(from).await.map(|()| Outcome::Nothing),
        Admitted::Join(ticket) => engine.sf_join(*ticket).await.map(|()| Outcome::Nothing),
        Admitted::Kill(ticket, clones) => engine.sf_kill(*ticket).await.map(|()| Outcome::Number(*clones)),
    }
}

/// The host may be forking the same VM at the moment.
async fn checkpoint(engine: &Engine, of: CloneId, call: RequestId) -> Result<CheckpointId, EngineError> {
    let until = Instant::now() + FORK_PATIENCE;
    loop {
        match engine.checkpoint_asked_by(of, call).await {
            Err(EngineError::NotForkable(_)) if Instant::now() < until => {
                tokio::time::sleep(FORK_AGAIN).await
            }
            other => return other,
        }
    }
}
