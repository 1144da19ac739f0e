//! Two ends on loopback: what passes, and that everything else is refused with a reason that both see.

use std::path::Path;

use time::{Duration as Days, OffsetDateTime};
use tokio::net::TcpListener;

use super::*;
use crate::hosts::certificates::{CertificateFiles, Credentials, make, make_between};
use crate::hosts::frame::{Kind, MAX_PAYLOAD, encode as frame};
use crate::hosts::ids::Unique;
use crate::hosts::message::{Answer, Ask, Reply, Request};

fn host() -> Role {
    Role::Host("h1".parse().unwrap())
}

fn request() -> Request {
    Request { id: Unique::of(7), deadline_ms: 5, ask: Ask::RequestTicket { clones: 3 } }
}

/// Credentials of an authority of their own.
fn cluster(folder: &Path) -> (Credentials, Credentials) {
    make(folder, &[Role::Master, host()], 1).unwrap();
    (load(folder, &Role::Master), load(folder, &host()))
}

fn load(folder: &Path, role: &Role) -> Credentials {
    Credentials::load(&CertificateFiles::within(folder, role)).unwrap()
}

/// What the accepting end and the connecting end say when the latter waits for a message.
async fn meet(master: &Credentials, other: &Credentials) -> (Result<Role, LinkError>, Option<LinkError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, client) = (master.server().unwrap(), other.client().unwrap());
    let accepting = async { accept(listener.accept().await.unwrap().0, server).await.map(|(_, role)| role) };
    let connecting = async {
        match connect(address, client).await {
            Ok(mut link) => link.receiver.receive::<Reply>().await.err(),
            Err(error) => Some(error),
        }
    };
    tokio::join!(accepting, connecting)
}

/// Two connected ends; the first is SFMD's.
async fn connected(folder: &Path) -> (Link, Link) {
    let (master, other) = cluster(folder);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async { accept(listener.accept().await.unwrap().0, master.server().unwrap()).await };
    let (accepted, link) = tokio::join!(accepting, connect(address, other.client().unwrap()));
    (accepted.unwrap().0, link.unwrap())
}

#[tokio::test]
async fn messages_pass_in_both_directions_and_the_certificate_says_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (master, other) = cluster(folder.path());
    let (role, _) = meet(&master, &other).await;
    assert_eq!(role.unwrap(), host());
    let (mut here, mut there) = connected(folder.path()).await;
    there.sender.send(&request()).await.unwrap();
    assert_eq!(here.receiver.receive::<Request>().await.unwrap(), Some(request()));
    let reply = Reply { id: Unique::of(7), answer: Answer::Done };
    here.sender.send(&reply).await.unwrap();
    here.sender.close().await;
    assert_eq!(there.receiver.receive::<Reply>().await.unwrap(), Some(reply));
    assert_eq!(there.receiver.receive::<Reply>().await.unwrap(), None);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_both_ends() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ((master, _), (_, stranger)) = (cluster(ours.path()), cluster(theirs.path()));
    let (_, said) = meet(&master, &stranger).await;
    let said = said.unwrap();
    assert!(!said.is_passing() && said.to_string().contains("its certificate is refused"), "{said}");
    // One that trusts SFMD, but that SFMD does not trust.
    let mut files = CertificateFiles::within(theirs.path(), &host());
    files.authority = ours.path().join("authority.pem");
    let (refused, said) = meet(&master, &Credentials::load(&files).unwrap()).await;
    let (refused, said) = (refused.unwrap_err(), said.unwrap());
    assert!(refused.to_string().contains("its certificate is refused"), "{refused}");
    assert!(!said.is_passing() && said.to_string().contains("refuses our certificate"), "{said}");
}

#[tokio::test]
async fn an_expired_certificate_and_one_of_tomorrow_are_refused_with_that_reason() {
    let now = OffsetDateTime::now_utc();
    for (from, until) in
        [(now - Days::days(9), now - Days::days(1)), (now + Days::days(1), now + Days::days(9))]
    {
        let folder = tempfile::tempdir().unwrap();
        let (master, _) = cluster(folder.path());
        make_between(folder.path(), &[host()], from, until).unwrap();
        let (refused, said) = meet(&master, &load(folder.path(), &host())).await;
        let (refused, said) = (refused.unwrap_err(), said.unwrap());
        assert!(refused.to_string().contains("certificate"), "{refused}");
        assert!(said.to_string().contains("expired, or is not valid yet"), "{said}");
        make_between(folder.path(), &[Role::Master], from, until).unwrap();
        let (_, said) = meet(&load(folder.path(), &Role::Master), &master).await;
        assert!(said.unwrap().to_string().contains("its certificate is refused"));
    }
}

#[tokio::test]
async fn a_host_cannot_pass_for_sfmd() {
    let folder = tempfile::tempdir().unwrap();
    let (_, host) = cluster(folder.path());
    let (_, said) = meet(&host, &host).await;
    let said = said.unwrap();
    assert!(matches!(said, LinkError::Untrusted { .. }), "{said}");
}

#[tokio::test]
async fn one_without_a_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (master, _) = cluster(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let authority = std::fs::read(folder.path().join("authority.pem")).unwrap();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let nobody = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let accepting = async { accept(listener.accept().await.unwrap().0, master.server().unwrap()).await };
    let connecting = async { connect(address, Arc::new(nobody)).await?.receiver.receive::<Reply>().await };
    let (refused, said) = tokio::join!(accepting, connecting);
    assert!(refused.unwrap_err().to_string().contains("shows no certificate"));
    assert!(said.unwrap_err().to_string().contains("refuses our certificate: there is none"));
}

#[tokio::test]
async fn a_frame_too_long_or_of_another_version_is_told_before_its_payload_has_come() {
    let folder = tempfile::tempdir().unwrap();
    for (at, bytes, why) in [
        (8, (MAX_PAYLOAD as u32 + 1).to_be_bytes().to_vec(), "at most 1048576 are allowed"),
        (4, vec![0, 9], "speaks version 9"),
    ] {
        let (mut here, mut there) = connected(folder.path()).await;
        let mut header = frame(Kind::Message, b"").unwrap();
        header[at..at + bytes.len()].copy_from_slice(&bytes);
        there.sender.write(&header).await.unwrap();
        let LinkError::Message { source, .. } = here.receiver.receive::<Request>().await.unwrap_err() else {
            panic!("not an error of the message")
        };
        assert!(source.to_string().contains(why), "{source}");
        here.sender.refuse(&source.to_string()).await;
        let LinkError::Message { source, .. } = there.receiver.receive::<Reply>().await.unwrap_err() else {
            panic!("the reason did not arrive")
        };
        assert!(source.to_string().contains(why), "{source}");
    }
}

#[tokio::test]
async fn a_message_with_an_unknown_field_is_none_and_one_cut_short_is_a_lost_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (mut here, mut there) = connected(folder.path()).await;
    let strange = r#"{"id":"0000000000000007","deadline_ms":1,"ask":"checkpoint","more":1}"#;
    there.sender.write(&frame(Kind::Message, strange.as_bytes()).unwrap()).await.unwrap();
    assert!(matches!(here.receiver.receive::<Request>().await, Err(LinkError::Message { .. })));
    let (mut here, mut there) = connected(folder.path()).await;
    let whole = encode(&request()).unwrap();
    there.sender.write(&whole[..whole.len() - 1]).await.unwrap();
    there.sender.close().await;
    let error = here.receiver.receive::<Request>().await.unwrap_err();
    assert!(error.is_passing(), "{error}");
}

#[tokio::test]
async fn an_end_that_has_vanished_without_a_word_is_noticed_in_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    prepare(&stream).unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    assert_eq!((socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_retries().unwrap()), (QUIET, 3));
}
