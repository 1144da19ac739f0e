//! What a tap lets through: real frames, written to it as a guest would.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use flurry_tests::site::Site;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use snowflock_engine::network::identity::{CloneId, MacAddress};
use snowflock_engine::network::{Network, Port};

/// Ahead of each frame: the header of virtio-net, all zeros.
const VIRTIO_HEADER: usize = 10;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// The marker's way through the kernel takes microseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// A network that goes at the end, as an engine would remove it.
struct Cable {
    site: Site,
    network: Network,
}

impl Drop for Cable {
    fn drop(&mut self) {
        let removed = Network::remove(self.site.name());
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

#[test]
fn a_guest_speaks_with_its_own_addresses_or_not_at_all() {
    let site = Site::new("spoof");
    let network = Network::create(site.name(), site.block(), None).unwrap();
    let cable = Cable { site, network };
    let (mut us, mut them) = (port(&cable, 1), port(&cable, 2));
    let (mac, ip) = (us.mac, us.ip);
    let (other_mac, other_ip) = (MacAddress([0x02, 9, 9, 9, 9, 9]), Ipv4Addr::new(10, 9, 9, 9));

    let silent = [
        ("another MAC", packet(&them, other_mac, ip)),
        ("another IP", packet(&them, mac, other_ip)),
        ("the neighbour's IP", packet(&them, mac, them.ip)),
        ("an ARP answer for another IP", arp(&them, mac, mac, them.ip)),
        ("an ARP answer with another MAC", arp(&them, mac, other_mac, ip)),
        ("an ARP frame from another MAC", arp(&them, other_mac, mac, ip)),
        ("another protocol", frame(&them, mac, IPV6, &[0x60; 40])),
    ];
    // What is sent after it and must pass comes out first, so it has not passed.
    let good = [packet(&them, mac, ip), arp(&them, mac, mac, ip)];
    for (what, bytes) in silent {
        us.tap.write_all(&bytes).unwrap();
        for good in &good {
            us.tap.write_all(good).unwrap();
            assert_eq!(hear(&mut them.tap, mac), good[VIRTIO_HEADER..], "{what} has passed");
        }
    }
    // It is the port's rules that held them back: without, they pass.
    cable.network.remove_port(us.id).unwrap();
    let spoofed = packet(&them, mac, other_ip);
    us.tap.write_all(&spoofed).unwrap();
    assert_eq!(hear(&mut them.tap, mac), spoofed[VIRTIO_HEADER..]);
}

fn port(cable: &Cable, id: u32) -> Port {
    let port = cable.network.add_port(CloneId(id)).expect("a port");
    fcntl(port.tap.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a tap that does not block");
    port
}

/// The next frame that comes out, without the virtio header. What the bridge itself says (IPv6) is passed over.
fn hear(tap: &mut File, guest: MacAddress) -> Vec<u8> {
    let until = Instant::now() + LIMIT;
    let mut room = [0; 2048];
    loop {
        match tap.read(&mut room) {
            Ok(count) => {
                let frame = &room[VIRTIO_HEADER..count];
                if frame[6..12] == guest.0 || frame[12..14] != IPV6 {
                    return frame.to_vec();
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1))
            }
            Err(error) => panic!("reading a tap: {error}"),
        }
        assert!(Instant::now() < until, "nothing came out of the tap");
    }
}

fn frame(to: &Port, from: MacAddress, kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[0; VIRTIO_HEADER][..], &to.mac.0, &from.0, &kind, payload].concat()
}

/// An IPv4 packet without content, with a right checksum: the bridge may look at it.
fn packet(to: &Port, mac: MacAddress, ip: Ipv4Addr) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&ip.octets());
    header[16..20].copy_from_slice(&to.ip.octets());
    let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&folded.to_be_bytes());
    frame(to, mac, IPV4, &header)
}

/// An ARP answer (RFC 826) that claims `ip` for `claimed`.
fn arp(to: &Port, sender: MacAddress, claimed: MacAddress, ip: Ipv4Addr) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &claimed.0, &ip.octets(), &to.mac.0, &to.ip.octets()];
    frame(to, sender, ARP, &body.concat())
}
