//! Requests as they come: whole, in pieces, pipelined, wrong.

use super::*;
use std::collections::VecDeque;

/// A stream that gives these pieces one by one and keeps what is written.
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl Read for Pieces {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.pieces.pop_front() else { return Ok(0) };
        let count = piece.len().min(room.len());
        room[..count].copy_from_slice(&piece[..count]);
        if count < piece.len() {
            self.pieces.push_front(piece.split_off(count));
        }
        Ok(count)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connection(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Connection<Pieces> {
    let pieces = pieces.into_iter().map(|p| p.as_ref().to_vec()).collect();
    Connection::new(Pieces { pieces, written: Vec::new() })
}

fn get(target: &str, keep_alive: bool) -> Incoming {
    Incoming::Request(Request { is_get: true, target: target.into(), keep_alive })
}

#[test]
fn requests_in_single_bytes_and_pipelined_are_read_one_after_another() {
    let text = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b?x=1 HTTP/1.1\r\nConnection: close\r\n\r\n";
    for size in [1, 7, text.len()] {
        let mut connection = connection(text.chunks(size));
        assert_eq!(connection.next().expect("read"), get("/a", true));
        assert_eq!(connection.next().expect("read"), get("/b?x=1", false));
        assert_eq!(connection.next().expect("read"), Incoming::End);
    }
}

#[test]
fn http_1_0_is_not_kept_alive() {
    assert_eq!(connection(["GET / HTTP/1.0\r\n\r\n"]).next().expect("read"), get("/", false));
}

#[test]
fn noise_and_bodies_are_refused() {
    for text in [
        "\x16\x03\x01\x02\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(connection([text]).next().expect("read"), Incoming::Bad(400), "{text:?}");
    }
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MOST_HEAD));
    assert_eq!(connection([endless]).next().expect("read"), Incoming::Bad(431));
}

#[test]
fn an_answer_says_how_long_it_is_and_whose() {
    let mut connection = connection([""; 0]);
    let response = Response { cache: Some(false), ..Response::json("{\"a\":1}".into()) };
    connection.answer(&response, "3", true).expect("written");
    let text = String::from_utf8(connection.stream.written).expect("text");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n"));
    assert!(text.contains("X-Flurry-Clone: 3\r\nX-Cache: miss\r\nConnection: keep-alive\r\n\r\n{\"a\":1}"));
}
