//! gRPC's health check (`grpc.health.v1.Health/Check`) as bytes: one message each way.
//!
//! A message is a zero (not compressed), its length in four bytes, and its fields. The
//! question has the service's name as field 1, the answer its state, which is 1 if it serves.

use bytes::Bytes;
use http::HeaderMap;

/// What is called.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";
/// Longest name of a service, so that its length is one byte.
pub(crate) const LONGEST_SERVICE: usize = 127;
/// Length of what stands before a message.
const PREFIX: usize = 5;
const SERVING: u64 = 1;

/// The question for a service; the empty name is for the whole server.
pub(super) fn question(service: &str) -> Bytes {
    let service = &service.as_bytes()[..service.len().min(LONGEST_SERVICE)];
    let mut field = Vec::new();
    if !service.is_empty() {
        // Field 1, of a known length.
        field.extend([0x0a, service.len() as u8]);
        field.extend(service);
    }
    let mut message = vec![0, 0, 0, 0, field.len() as u8];
    message.append(&mut field);
    message.into()
}

/// Whether an answer says that the service serves.
pub(super) fn is_serving(message: &[u8]) -> bool {
    let fields = message.get(PREFIX..).unwrap_or_default();
    message.first() == Some(&0) && state(fields) == Some(SERVING)
}

/// `grpc-status` of an answer: in its trailers, or in its head if there is nothing else.
pub(super) fn status<'a>(head: &'a HeaderMap, trailers: Option<&'a HeaderMap>) -> &'a str {
    let named = |fields: &'a HeaderMap| fields.get("grpc-status").and_then(|it| it.to_str().ok());
    trailers.and_then(named).or_else(|| named(head)).unwrap_or("none")
}

/// Field 1, a number. Others are passed over.
fn state(mut fields: &[u8]) -> Option<u64> {
    let mut state = None;
    while !fields.is_empty() {
        let tag = varint(&mut fields)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => state = Some(varint(&mut fields)?),
            (_, 0) => drop(varint(&mut fields)?),
            (_, 2) => {
                let length = usize::try_from(varint(&mut fields)?).ok()?;
                fields = fields.get(length..)?;
            }
            _ => return None,
        }
    }
    state
}

/// Takes a number, seven bits a byte, lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_service_or_none() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        assert_eq!(question(&"x".repeat(500)).len(), PREFIX + 2 + LONGEST_SERVICE);
    }

    #[test]
    fn only_an_answer_that_says_so_means_serving() {
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        assert!(is_serving(&[0, 0, 0, 0, 6, 0x12, 2, b'h', b'i', 8, 1]), "after a field of others");
        for bad in
            [&[][..], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 8, 2], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 8]]
        {
            assert!(!is_serving(bad), "{bad:?}");
        }
        assert!(!is_serving(&[0, 0, 0, 0, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]));
        assert!(!is_serving(&[0, 0, 0, 0, 2, 0x12, 9]), "a field longer than the message");
    }

    #[test]
    fn the_status_is_in_the_trailers_or_in_the_head() {
        let with = |status: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static(status),
            )])
        };
        assert_eq!(status(&HeaderMap::new(), Some(&with("0"))), "0");
        assert_eq!(status(&with("12"), None), "12");
        assert_eq!(status(&HeaderMap::new(), None), "none");
    }
}
