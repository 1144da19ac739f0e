//! What is handed over: listening sockets, each with the address it was asked for.
//!
//! One message says what comes; the sockets follow, as many in a message as fit.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use snowflock_engine::sys::fdpass::{Channel, MAX_FDS};

use crate::net::Address;
use crate::server::Listening;

/// Of the messages between the two; another one is refused.
const VERSION: u32 = 1;
/// Most sockets that are handed over: more than any host has processors and addresses for.
const MAX_SOCKETS: usize = 16 * 1024;

/// What the first message says.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// Where the admin listener was asked to be.
    admin: SocketAddr,
    /// Address as asked for, and how many sockets it has.
    doors: Vec<(String, usize)>,
}

/// What a process gives away.
#[derive(Debug)]
pub struct Offer {
    contents: Contents,
    sockets: Vec<OwnedFd>,
}

impl Offer {
    /// Of an admin listener; `asked` is its address as configured.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn new(asked: SocketAddr, admin: &TcpListener) -> io::Result<Self> {
        let contents = Contents { version: VERSION, admin: asked, doors: Vec::new() };
        Ok(Self { contents, sockets: vec![admin.as_fd().try_clone_to_owned()?] })
    }

    /// Adds the sockets of an address, `asked` for as configured.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn add(&mut self, asked: &Address, sockets: &[Listening]) -> io::Result<()> {
        for socket in sockets {
            self.sockets.push(socket.as_fd().try_clone_to_owned()?);
        }
        self.contents.doors.push((asked.to_string(), sockets.len()));
        Ok(())
    }

    /// Sends all of it.
    pub(super) fn send(&self, channel: &Channel) -> io::Result<()> {
        channel.send(&serde_json::to_vec(&self.contents)?, &[])?;
        for sockets in self.sockets.chunks(MAX_FDS) {
            let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
            channel.send(b"sockets", &sockets)?;
        }
        Ok(())
    }
}

/// What a process was given. What is not taken out of it is closed with it.
#[derive(Debug, Default)]
pub struct Inherited {
    admin: Option<(SocketAddr, TcpListener)>,
    doors: Vec<(Address, Vec<Listening>)>,
}

impl Inherited {
    /// Receives what [`Offer::send`] sends.
    pub(super) fn receive(channel: &Channel) -> io::Result<Self> {
        let contents: Contents = serde_json::from_slice(&channel.receive()?.bytes)?;
        if contents.version != VERSION {
            return Err(invalid(format!("an offer of version {}, not {VERSION}", contents.version)));
        }
        let doors = contents.doors.iter().map(|(_, count)| *count);
        let expected = doors.fold(1_usize, usize::saturating_add);
        if expected > MAX_SOCKETS {
            return Err(invalid(format!("an offer of {expected} sockets, more than {MAX_SOCKETS}")));
        }
        let mut sockets = Vec::new();
        while sockets.len() < expected {
            match channel.receive()?.fds {
                fds if fds.is_empty() => return Err(invalid("a message without sockets".to_owned())),
                fds => sockets.extend(fds),
            }
        }
        Self::sorted(&contents, sockets)
    }

    fn sorted(contents: &Contents, sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let mut sockets = sockets.into_iter();
        let mut next = || sockets.next().ok_or_else(|| invalid("fewer sockets than announced".to_owned()));
        let admin = Some((contents.admin, TcpListener::from(next()?)));
        let mut doors = Vec::new();
        for (address, count) in &contents.doors {
            let address: Address = address.parse().map_err(invalid)?;
            let listening = |_| next().and_then(|socket| Listening::inherited(&address, socket));
            let sockets = (0..*count).map(listening).collect::<io::Result<_>>()?;
            doors.push((address, sockets));
        }
        Ok(Self { admin, doors })
    }

    /// Whether there is nothing, as in a process that takes over from nobody.
    pub fn is_empty(&self) -> bool {
        self.admin.is_none() && self.doors.is_empty()
    }

    /// The admin listener of this address.
    pub fn take_admin(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_it = |(asked, it): &mut (SocketAddr, TcpListener)| {
            *asked == address || it.local_addr().is_ok_and(|real| real == address)
        };
        self.admin.take_if(is_it).map(|(_, listener)| listener)
    }

    /// The sockets of this address, asked for so or really there.
    pub fn take(&mut self, address: &Address) -> Option<Vec<Listening>> {
        let is_it = |(asked, sockets): &(Address, Vec<Listening>)| {
            asked == address || sockets.first().is_some_and(|it| it.address(asked) == *address)
        };
        let index = self.doors.iter().position(is_it)?;
        Some(self.doors.swap_remove(index).1)
    }

    /// Ends what nobody has taken: files of unix sockets go, too.
    pub fn close(self) {
        for (address, _) in &self.doors {
            tracing::info!(%address, "no longer listened on");
            address.remove_file();
        }
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{bind_alone, bind_shared};

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    fn offer(workers: usize) -> (Offer, Address, SocketAddr) {
        let admin = bind_alone("admin", ANY).unwrap();
        let sockets = bind_shared("listen[0]", &ANY.into(), workers).unwrap();
        let mut offer = Offer::new(ANY, &admin).unwrap();
        offer.add(&ANY.into(), &sockets).unwrap();
        (offer, sockets[0].address(&ANY.into()), admin.local_addr().unwrap())
    }

    fn given(offer: &Offer) -> io::Result<Inherited> {
        let (ours, theirs) = Channel::pair().unwrap();
        offer.send(&ours).unwrap();
        Inherited::receive(&theirs)
    }

    #[test]
    fn more_sockets_than_fit_one_message_arrive_and_are_found_by_either_address() {
        let (offer, real, admin) = offer(MAX_FDS + 1);
        let mut inherited = given(&offer).unwrap();
        assert!(inherited.take(&"127.0.0.1:1".parse().unwrap()).is_none());
        assert_eq!(inherited.take(&real).unwrap().len(), MAX_FDS + 1);
        assert_eq!(inherited.take_admin(ANY).unwrap().local_addr().unwrap(), admin);
        assert!(inherited.is_empty());
    }

    #[test]
    fn offers_of_another_version_or_without_their_sockets_are_refused() {
        let (mut offer, ..) = offer(1);
        offer.contents.version = 2;
        assert!(given(&offer).unwrap_err().to_string().contains("version 2"));
        offer.contents.version = VERSION;
        offer.contents.doors[0].1 = usize::MAX;
        assert!(given(&offer).unwrap_err().to_string().contains("more than"));
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(br#"{"version": 1, "admin": "127.0.0.1:1", "doors": []}"#, &[]).unwrap();
        ours.send(b"none", &[]).unwrap();
        assert!(Inherited::receive(&theirs).unwrap_err().to_string().contains("without sockets"));
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let (mut offer, ..) = offer(1);
        offer.sockets[1] = std::fs::File::open("/dev/null").unwrap().into();
        assert!(given(&offer).is_err());
        let unbound = std::net::UdpSocket::bind(ANY).unwrap();
        offer.sockets[1] = unbound.into();
        assert!(given(&offer).is_err());
    }
}
