//! HTTP/1.1 as nginx speaks it to an upstream: GETs one after another on a kept connection.
//!
//! A request head is bounded, a request body is refused (nothing here takes one), and an answer is one
//! write. Parsing is httparse's.

use std::io::{self, Read, Write};

/// The largest request head.
const MOST_HEAD: usize = 8 << 10;
const MOST_HEADERS: usize = 64;

/// A request's method and target, and whether the connection stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) is_get: bool,
    pub(crate) target: String,
    pub(crate) keep_alive: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// `X-Cache`: hit or miss.
    pub(crate) cache: Option<bool>,
    /// JSON, or plain text if it does not begin with a brace.
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(body: String) -> Self {
        Self { status: 200, cache: None, body }
    }

    pub(crate) fn refused(status: u16, why: &str) -> Self {
        Self { status, cache: None, body: format!("{why}\n") }
    }

    fn bytes(&self, clone: &str, keep_alive: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            _ => "Internal Server Error",
        };
        let kind = if self.body.starts_with('{') { "application/json" } else { "text/plain" };
        let cache = match self.cache {
            Some(true) => "X-Cache: hit\r\n",
            Some(false) => "X-Cache: miss\r\n",
            None => "",
        };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nX-Flurry-Clone: {clone}\r\n\
             {cache}Connection: {}\r\n\r\n{}",
            self.status,
            self.body.len(),
            if keep_alive { "keep-alive" } else { "close" },
            self.body,
        )
        .into_bytes()
    }
}

/// A connection with what was read ahead.
pub(crate) struct Connection<S> {
    stream: S,
    head: Vec<u8>,
}

/// What came over the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Request(Request),
    /// No request: this status is the answer, and the connection ends.
    Bad(u16),
    /// The client hung up between requests.
    End,
}

impl<S: Read + Write> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, head: Vec::with_capacity(1024) }
    }

    /// Waits for the next request.
    pub(crate) fn next(&mut self) -> io::Result<Incoming> {
        loop {
            match parse(&self.head) {
                Parsed::Whole(request, length) => {
                    self.head.drain(..length);
                    return Ok(Incoming::Request(request));
                }
                Parsed::Bad(status) => return Ok(Incoming::Bad(status)),
                Parsed::Partial if self.head.len() >= MOST_HEAD => return Ok(Incoming::Bad(431)),
                Parsed::Partial => {}
            }
            let mut piece = [0; 1024];
            let count = self.stream.read(&mut piece)?;
            if count == 0 {
                return Ok(Incoming::End);
            }
            self.head.extend(&piece[..count]);
        }
    }

    pub(crate) fn answer(&mut self, response: &Response, clone: &str, keep_alive: bool) -> io::Result<()> {
        self.stream.write_all(&response.bytes(clone, keep_alive))
    }
}

enum Parsed {
    Whole(Request, usize),
    Partial,
    Bad(u16),
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => Parsed::Bad(431),
        Err(_) => Parsed::Bad(400),
        Ok(httparse::Status::Complete(length)) => {
            let has_body = request.headers.iter().any(|h| {
                h.name.eq_ignore_ascii_case("transfer-encoding")
                    || h.name.eq_ignore_ascii_case("content-length") && h.value != b"0"
            });
            if has_body {
                return Parsed::Bad(400);
            }
            let closes = |h: &httparse::Header<'_>| {
                h.name.eq_ignore_ascii_case("connection") && h.value.eq_ignore_ascii_case(b"close")
            };
            let keep_alive = request.version == Some(1) && !request.headers.iter().any(closes);
            let is_get = request.method == Some("GET");
            let target = request.path.unwrap_or_default().to_string();
            Parsed::Whole(Request { is_get, target, keep_alive }, length)
        }
    }
}

#[cfg(test)]
mod tests;
