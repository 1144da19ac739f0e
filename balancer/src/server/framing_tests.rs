//! Tables of good and bad bytes, each read whole and byte by byte.

use proptest::prelude::*;

use super::*;

fn whole(bytes: &[u8]) -> Result<Scanner, (usize, Malformed)> {
    let mut scanner = Scanner::default();
    scanner.scan(bytes).map(|()| scanner)
}

fn byte_by_byte(bytes: &[u8]) -> Result<Scanner, (usize, Malformed)> {
    let mut scanner = Scanner::default();
    for (index, byte) in bytes.iter().enumerate() {
        scanner.scan(&[*byte]).map_err(|(_, why)| (index, why))?;
    }
    Ok(scanner)
}

#[test]
fn well_formed_messages_end_where_they_end() {
    for message in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel\nlo"[..].trim_end_matches('o'),
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: Chunked\r\n\r\n5;x=y\r\nhel\nl\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\n0\r\nChecksum: 1\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        for scan in [whole, byte_by_byte] {
            let scanner = scan(message.as_bytes()).unwrap_or_else(|why| panic!("{message:?}: {why:?}"));
            assert!(scanner.between_messages(), "{message:?}: {scanner:?}");
        }
    }
}

#[test]
fn ambiguous_messages_are_refused() {
    use Malformed as M;
    for (message, why) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", M::BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", M::BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", M::BareLineFeed),
        ("\nGET / HTTP/1.1\r\n", M::BareLineFeed),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", M::EmptyLines),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", M::LengthAndEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", M::LengthAndEncoding),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", M::RepeatedLength),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", M::RepeatedLength),
        ("POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n", M::BadLength),
        ("POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", M::BadLength),
        ("POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n", M::BadLength),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", M::BadLength),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", M::BadLength),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", M::BadEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", M::BadEncoding),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            M::BadEncoding,
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", M::BadEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n", M::BadChunkSize),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n", M::BadChunkSize),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n", M::BadChunkSize),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n", M::BadChunkSize),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1234567890123456\r\n", M::BadChunkSize),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n", M::BadChunkSize),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n", M::BareLineFeed),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n", M::BadChunkEnd),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n", M::BareLineFeed),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 4\r\n\r\n",
            M::BadTrailer,
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n", M::BadTrailer),
    ] {
        for scan in [whole, byte_by_byte] {
            let (_, found) = scan(message.as_bytes()).expect_err(message);
            assert_eq!(found, why, "{message:?}");
        }
    }
}

#[test]
fn the_second_of_two_requests_is_looked_at_too() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n";
    let (at, why) = whole(bytes).unwrap_err();
    assert_eq!((bytes[at], why), (b'\n', Malformed::BareLineFeed));
}

#[test]
fn a_line_longer_than_the_limit_is_refused() {
    let mut scanner = Scanner::default();
    scanner.scan(b"GET / HTTP/1.1\r\nX: ").unwrap();
    let block = [b'x'; 1024];
    let refused = (0..200).find_map(|_| scanner.scan(&block).err());
    assert_eq!(refused, Some((0, Malformed::LongLine)));
}

#[test]
fn bodies_are_skipped_however_long() {
    let mut scanner = Scanner::default();
    scanner.scan(b"PUT / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n").unwrap();
    for _ in 0..10 {
        assert!(!scanner.between_messages() && !scanner.in_head());
        scanner.scan(&[b'\n'; 10_000]).unwrap();
    }
    assert!(scanner.between_messages());
}

#[test]
fn a_started_head_is_known_as_such() {
    let mut scanner = Scanner::default();
    assert!(!scanner.in_head());
    scanner.scan(b"G").unwrap();
    assert!(scanner.in_head());
    scanner.scan(b"ET / HTTP/1.1\r\n").unwrap();
    assert!(scanner.in_head());
    scanner.scan(b"\r\n").unwrap();
    assert!(!scanner.in_head());
}

/// Pieces of requests, good and bad, from which byte strings are made.
const PIECES: [&str; 22] = [
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 7\r\n",
    "content-length:12\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "X: y\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "0\r\n",
    "7\r\n",
    "a;b=c\r\n",
    "1234567",
    "0123456789",
    "\0",
    " ",
    "Trailer: z\r\n",
];

proptest! {
    #[test]
    fn how_bytes_are_cut_into_reads_changes_nothing(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40),
        cuts in prop::collection::vec(1_usize..20, 1..200),
    ) {
        let bytes = pieces.concat().into_bytes();
        let mut scanner = Scanner::default();
        let mut cut_verdict = Ok(());
        let (mut from, mut sizes) = (0, cuts.iter().cycle());
        while from < bytes.len() && cut_verdict.is_ok() {
            let to = (from + sizes.next().copied().unwrap_or(1)).min(bytes.len());
            cut_verdict = scanner.scan(&bytes[from..to]).map_err(|(at, why)| (from + at, why));
            from = to;
        }
        match whole(&bytes) {
            Ok(at_once) => {
                prop_assert_eq!(cut_verdict, Ok(()));
                prop_assert_eq!(at_once.at, scanner.at);
                prop_assert_eq!(at_once.partial, scanner.partial);
            }
            Err(refused) => prop_assert_eq!(cut_verdict, Err(refused)),
        }
    }

    #[test]
    fn no_bytes_make_the_scanner_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut scanner = Scanner::default();
        if let Err((at, _)) = scanner.scan(&bytes) {
            prop_assert!(at < bytes.len());
        }
    }
}
