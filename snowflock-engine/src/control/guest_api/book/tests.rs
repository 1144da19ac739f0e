//! The book, without an engine: `lives` is what the engine's view would say.

use super::*;

const PARENT: CloneId = CloneId::PARENT;

fn book(quota: u32) -> (Book, Instant) {
    let now = Instant::now();
    (Book::new(quota, now), now)
}

fn all_live(_: CloneId) -> bool {
    true
}

/// A ticket for clones of these IDs, as the engine grants it.
fn granted(book: &mut Book, now: Instant, ticket: u32, clones: &[u32]) {
    let call = Call::RequestTicket(clones.len() as u32);
    let admitted = book.admit(PARENT, call, now, |_| false).expect("room");
    book.finished(&admitted);
    book.granted(TicketId(ticket), clones.iter().map(|id| CloneId(*id)).collect());
}

#[test]
fn without_a_quota_everything_is_refused() {
    let (mut book, now) = book(0);
    for call in [Call::RequestTicket(1), Call::Checkpoint, Call::Exit(0), Call::Kill(1)] {
        assert_eq!(book.admit(PARENT, call, now, all_live), Err(Refused::Off));
    }
}

#[test]
fn a_ticket_is_cut_to_what_the_quota_leaves() {
    let (mut book, now) = book(5);
    assert_eq!(book.admit(PARENT, Call::RequestTicket(0), now, all_live), Err(Refused::NoneAsked));
    granted(&mut book, now, 1, &[1, 2, 3]);
    let asked = Call::RequestTicket(9);
    assert_eq!(book.admit(PARENT, asked, now, all_live), Ok(Admitted::RequestTicket(2)));
    assert_eq!(book.admit(PARENT, asked, now, all_live), Err(Refused::TooMany), "one at a time");
    book.finished(&Admitted::RequestTicket(2));
    book.granted(TicketId(2), vec![CloneId(4), CloneId(5)]);
    assert_eq!(book.admit(PARENT, asked, now, all_live), Err(Refused::Quota(5)));
    assert_eq!(book.admit(PARENT, asked, now, |id| id.0 > 3), Ok(Admitted::RequestTicket(3)));
}

#[test]
fn a_ticket_is_used_once_by_the_one_who_has_it() {
    let (mut book, now) = book(4);
    assert_eq!(book.admit(PARENT, Call::Clone(1), now, all_live), Err(Refused::NoTicket));
    granted(&mut book, now, 1, &[1]);
    assert_eq!(book.admit(PARENT, Call::Join(1), now, all_live), Err(Refused::Unused));
    assert_eq!(book.admit(CloneId(1), Call::Clone(1), now, all_live), Err(Refused::NotParent));
    assert_eq!(book.admit(PARENT, Call::Clone(1), now, all_live), Ok(Admitted::Clone(TicketId(1))));
    assert_eq!(book.admit(PARENT, Call::Clone(1), now, all_live), Err(Refused::Used));
    assert_eq!(book.admit(PARENT, Call::Join(1), now, all_live), Ok(Admitted::Join(TicketId(1))));
    assert_eq!(book.admit(PARENT, Call::Kill(1), now, all_live), Ok(Admitted::Kill(TicketId(1), 1)));
}

#[test]
fn clones_are_made_only_of_a_checkpoint_that_the_guest_asked_for() {
    let (mut book, now) = book(4);
    granted(&mut book, now, 1, &[1]);
    let create = Call::Create { ticket: 1, checkpoint: 7 };
    assert_eq!(book.admit(PARENT, create, now, all_live), Err(Refused::NoCheckpoint));
    assert_eq!(book.admit(PARENT, Call::Checkpoint, now, all_live), Ok(Admitted::Checkpoint));
    book.checkpointed(7);
    let admitted = book.admit(PARENT, create, now, all_live);
    assert_eq!(admitted, Ok(Admitted::Create(TicketId(1), CheckpointId(7))));
}

#[test]
fn a_clone_of_a_guests_ticket_exits_with_its_first_status_and_no_other_vm_does() {
    let (mut book, now) = book(4);
    granted(&mut book, now, 1, &[11, 12]);
    for other in [PARENT, CloneId(11), CloneId(9)] {
        let exit = book.admit(other, Call::Exit(1), now, all_live);
        assert_eq!(exit, Err(Refused::NotAClone), "{other}: not born of a ticket that was used");
    }
    book.admit(PARENT, Call::Clone(1), now, all_live).expect("a ticket");
    assert_eq!(book.admit(CloneId(11), Call::Exit(25), now, all_live), Ok(Admitted::Exit));
    assert_eq!(book.admit(CloneId(11), Call::Exit(26), now, all_live), Ok(Admitted::Exit));
    let ends = book.joined(TicketId(1));
    let expected = [End { place: 1, status: Some(25) }, End { place: 2, status: None }];
    assert!(ends.iter().eq(&expected), "{ends:?}");
}

#[test]
fn a_guest_that_floods_is_refused_until_it_rests_and_may_exit_all_the_same() {
    let (mut book, now) = book(4);
    let flood = |book: &mut Book, now| {
        let admitted = (0..100).filter(|_| book.admit(PARENT, Call::Checkpoint, now, all_live).is_ok());
        let admitted = admitted.count() as u32;
        (0..admitted).for_each(|_| book.finished(&Admitted::Checkpoint));
        admitted
    };
    assert_eq!(flood(&mut book, now), MOST_AT_ONCE, "no more are under way at once");
    assert_eq!(flood(&mut book, now), MOST_AT_ONCE);
    assert_eq!(flood(&mut book, now), BURST - 2 * MOST_AT_ONCE);
    assert_eq!(flood(&mut book, now), 0);
    assert_eq!(flood(&mut book, now + PERIOD), 1);
    assert_eq!(flood(&mut book, now + PERIOD * 3), 2);
}

#[test]
fn old_tickets_are_forgotten_and_living_ones_never() {
    let (mut book, now) = book(4);
    granted(&mut book, now, 1, &[1]);
    for ticket in 2..200 {
        let later = now + PERIOD * ticket;
        let asked = book.admit(PARENT, Call::RequestTicket(1), later, |id| id.0 == 1).expect("room");
        book.finished(&asked);
        book.granted(TicketId(ticket), vec![CloneId(ticket)]);
    }
    assert!(book.tickets.len() <= MOST_TICKETS && book.tickets.contains_key(&1));
}
