//! What comes out of a line, whatever a guest puts in.

use std::io::Write;

use tokio::sync::mpsc::channel;

use super::*;
use crate::wire::frame::VERSION;

const LONG: Duration = Duration::from_secs(10);

fn call(number: u32) -> Vec<u8> {
    let message = GuestMessage::Call(RequestId(number), Call::Exit(number));
    message.encode(&mut [0; MAX_FRAME]).to_vec()
}

/// The next answer that the guest reads.
fn heard(guest: &mut UnixStream) -> HostMessage {
    guest.set_read_timeout(Some(LONG)).unwrap();
    let mut decoder = Decoder::default();
    loop {
        if let Some(frame) = decoder.next_frame() {
            assert_eq!(frame.version, VERSION);
            return HostMessage::parse(&frame).unwrap();
        }
        let count = guest.read(decoder.space()).expect("an answer");
        decoder.filled(count);
    }
}

#[test]
fn calls_carry_the_name_of_their_line_and_are_answered_on_it() {
    let (host, mut guest) = UnixStream::pair().unwrap();
    let (to, mut calls) = channel(4);
    let _answers = listen(&host, Some(Caller { from: CloneId(7), to })).unwrap();
    guest.write_all(&call(3)).unwrap();
    let called = calls.blocking_recv().expect("a call");
    assert_eq!((called.from, called.request, called.call), (CloneId(7), RequestId(3), Call::Exit(3)));
    called.reply.answer(called.request, Answer::Done(1));
    assert_eq!(heard(&mut guest), HostMessage::Answer(RequestId(3), Answer::Done(1)));
}

#[test]
fn a_call_too_many_is_refused_and_the_others_stand() {
    let (host, mut guest) = UnixStream::pair().unwrap();
    let (to, mut calls) = channel(1);
    let _answers = listen(&host, Some(Caller { from: CloneId(1), to })).unwrap();
    guest.write_all(&[call(1), call(2)].concat()).unwrap();
    let HostMessage::Answer(RequestId(2), Answer::Refused(why)) = heard(&mut guest) else {
        panic!("the second call is refused");
    };
    assert!(why.as_str().contains("too many"), "{why:?}");
    assert_eq!(calls.blocking_recv().expect("the first").request, RequestId(1));
}

#[test]
fn noise_and_unasked_answers_hide_no_call() {
    let (host, mut guest) = UnixStream::pair().unwrap();
    let (to, mut calls) = channel(4);
    let answers = listen(&host, Some(Caller { from: CloneId(1), to })).unwrap();
    let pong = GuestMessage::Pong { request: RequestId(9), clone_id: 1 };
    let unasked = pong.encode(&mut [0; MAX_FRAME]).repeat(ANSWERS + 5);
    guest.write_all(&[&[0xF1; 3000][..], &unasked, &call(8)].concat()).unwrap();
    assert_eq!(calls.blocking_recv().expect("a call").request, RequestId(8));
    assert_eq!(answers.try_iter().count(), ANSWERS, "as many as the queue holds");
}

#[test]
fn a_guest_that_does_not_read_holds_nobody_up() {
    let (host, guest) = UnixStream::pair().unwrap();
    let reply = ReplyLine(Arc::new(host));
    (0..10_000).for_each(|number| reply.answer(RequestId(number), Answer::Done(1)));
    drop(guest);
    reply.answer(RequestId(1), Answer::Done(1));
}

#[test]
fn a_flood_is_read_at_the_pace_of_the_budget() {
    let start = Instant::now();
    let mut budget = Budget::new(start);
    let half = start + Duration::from_millis(500);
    assert_eq!(budget.spend(BYTES_PER_SECOND - 1, half), Duration::ZERO);
    assert_eq!(budget.spend(10, half), Duration::from_millis(500), "until the second is over");
    assert_eq!(budget.spend(10, start + Duration::from_secs(1)), Duration::ZERO, "a new second");
}

#[test]
fn the_thread_ends_with_the_line() {
    let (host, _guest) = UnixStream::pair().unwrap();
    let answers = listen(&host, None).unwrap();
    host.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(answers.recv_timeout(LONG).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Disconnected));
}
