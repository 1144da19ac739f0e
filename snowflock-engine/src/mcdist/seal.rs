//! What keeps others out: every datagram is sealed with a key of its session,
//! and counted, so that it can be neither forged nor played again.
//!
//!   checkpoint key --HKDF(checkpoint, role, session)--> session key
//!   nonce = channel, counter: never twice under one key, since a session is
//!   random at every start and a counter only grows
//!
//! Sealed, not only signed: pages hold whatever secrets a guest has.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use serde::{Deserialize, Serialize};

use super::message::WireError;

/// First bytes of every datagram.
pub const MAGIC: [u8; 4] = *b"FLMD";
/// Version of the protocol.
pub const VERSION: u8 = 1;
/// Bytes of the header, which is sent in clear and authenticated.
pub const HEADER_BYTES: usize = 32;
/// Bytes of the seal behind the message.
pub const TAG_BYTES: usize = 16;

/// The secret of a checkpoint; it reaches hosts over an authenticated channel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key([u8; 32]);

impl Key {
    /// A key of these bytes, which must be random.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        random(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// Fills a buffer with random bytes of the system.
fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    use aws_lc_rs::rand::SecureRandom;
    let filled = aws_lc_rs::rand::SystemRandom::new().fill(bytes);
    filled.map_err(|_| std::io::Error::other("the system gives no random bytes"))
}

/// Names a checkpoint on the network; random, so that two engines never mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DistributionId(pub u64);

/// Names one life of a sender or receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 8];
        random(&mut bytes)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

/// Who sent a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one sender.
    Sender,
    /// One of many receivers.
    Receiver,
}

/// Counters of a session are kept for each channel: 0 is multicast, others lead to one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel(pub u16);

impl Channel {
    /// To all.
    pub const MULTICAST: Self = Self(0);
}

/// The header of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub role: Role,
    /// On which channel.
    pub channel: Channel,
    /// About which checkpoint.
    pub distribution: DistributionId,
    /// In which of the sender's lives.
    pub session: SessionId,
    /// As which datagram of that channel, from 1.
    pub counter: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = u8::from(self.role == Role::Receiver);
        bytes[6..8].copy_from_slice(&self.channel.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.distribution.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.session.0.to_le_bytes());
        bytes[24..].copy_from_slice(&self.counter.to_le_bytes());
        bytes
    }

    /// Reads it, in order of distrust; nothing of it is proven yet.
    ///
    /// # Errors
    /// The datagram is too short, of another protocol, or of another version.
    pub fn parse(datagram: &[u8]) -> Result<Self, WireError> {
        if datagram.len() < HEADER_BYTES + TAG_BYTES {
            return Err(WireError::Short(datagram.len()));
        }
        if datagram[..4] != MAGIC {
            return Err(WireError::Foreign);
        }
        if datagram[4] != VERSION {
            return Err(WireError::Version(datagram[4]));
        }
        let role = match datagram[5] {
            0 => Role::Sender,
            1 => Role::Receiver,
            other => return Err(WireError::Role(other)),
        };
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&datagram[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Ok(Self {
            role,
            channel: Channel(u16::from_le_bytes([datagram[6], datagram[7]])),
            distribution: DistributionId(number(8)),
            session: SessionId(number(16)),
            counter: number(24),
        })
    }

    fn nonce(&self) -> Nonce {
        let mut bytes = [0; NONCE_LEN];
        bytes[2..4].copy_from_slice(&self.channel.0.to_le_bytes());
        bytes[4..].copy_from_slice(&self.counter.to_le_bytes());
        Nonce::assume_unique_for_key(bytes)
    }
}

/// The key of one session.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    distribution: DistributionId,
    role: Role,
    key: LessSafeKey,
}

impl Session {
    /// Derives it.
    #[must_use]
    pub fn new(key: &Key, distribution: DistributionId, role: Role, id: SessionId) -> Self {
        let (about, who) = (distribution.0.to_le_bytes(), id.0.to_le_bytes());
        let label: &[u8] = if role == Role::Sender { b"mcdist 1 sender" } else { b"mcdist 1 receiver" };
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &about).extract(&key.0);
        let info = [label, &who];
        // Both can only fail on lengths, which are constants here.
        let key = secret.expand(&info, &AES_256_GCM).map(UnboundKey::from);
        let key = LessSafeKey::new(key.unwrap_or_else(|_| unreachable!("the length of a key is allowed")));
        Self { id, distribution, role, key }
    }

    /// Which session it is.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Appends a sealed datagram to `out`; `write` appends the message to what it is given.
    ///
    /// The caller never gives the same counter twice on one channel.
    pub fn seal(&self, channel: Channel, counter: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let (role, distribution, session) = (self.role, self.distribution, self.id);
        let header = Header { role, channel, distribution, session, counter };
        let clear = header.encode();
        out.extend_from_slice(&clear);
        let start = out.len();
        write(out);
        let body = &mut out[start..];
        let sealed = self.key.seal_in_place_separate_tag(header.nonce(), Aad::from(clear), body);
        // It can only fail on a message of more than 64 GiB.
        let tag =
            sealed.unwrap_or_else(|_| unreachable!("a datagram is shorter than the limit of the cipher"));
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens a datagram of this session in its place.
    ///
    /// # Errors
    /// It was not sealed with this key, or was changed since.
    pub fn open<'a>(&self, header: &Header, datagram: &'a mut [u8]) -> Result<&'a [u8], WireError> {
        let (clear, body) = datagram.split_at_mut(HEADER_BYTES);
        let opened = self.key.open_in_place(header.nonce(), Aad::from(clear), body);
        opened.map(|message| &*message).map_err(|_| WireError::Forged)
    }
}

/// Which counters of a channel have come: the last 128 one by one, older ones count as come.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplayWindow {
    high: u64,
    seen: u128,
}

impl ReplayWindow {
    /// Notes a counter; `false` if it has come before, or is too old to tell.
    pub fn note(&mut self, counter: u64) -> bool {
        if counter > self.high {
            let ahead = u32::try_from(counter - self.high).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.high = counter;
            return true;
        }
        let back = u32::try_from(self.high - counter).unwrap_or(u32::MAX);
        let Some(bit) = 1u128.checked_shl(back) else { return false };
        let is_new = counter > 0 && self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }

    /// The highest counter that has come.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: DistributionId = DistributionId(7);

    fn session(key: u8, role: Role, id: u64) -> Session {
        Session::new(&Key::from_bytes([key; 32]), ABOUT, role, SessionId(id))
    }

    fn sealed(by: &Session, counter: u64) -> Vec<u8> {
        let mut out = Vec::new();
        by.seal(Channel(2), counter, &mut out, |out| out.extend_from_slice(b"hello"));
        out
    }

    fn opened(by: &Session, mut datagram: Vec<u8>) -> Result<Vec<u8>, WireError> {
        let header = Header::parse(&datagram)?;
        by.open(&header, &mut datagram).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_sealed_message_comes_back_and_cannot_be_read_on_the_way() {
        let ours = session(1, Role::Sender, 5);
        let datagram = sealed(&ours, 9);
        assert!(!datagram.windows(5).any(|bytes| bytes == b"hello"));
        let header = Header::parse(&datagram).unwrap();
        assert_eq!((header.channel, header.counter, header.session), (Channel(2), 9, SessionId(5)));
        assert_eq!(opened(&ours, datagram).unwrap(), b"hello");
    }

    #[test]
    fn no_bit_of_a_datagram_can_be_changed() {
        let ours = session(1, Role::Sender, 5);
        let good = sealed(&ours, 9);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&ours, bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_key_role_session_or_checkpoint_opens_nothing() {
        let datagram = sealed(&session(1, Role::Sender, 5), 9);
        let elsewhere =
            Session::new(&Key::from_bytes([1; 32]), DistributionId(8), Role::Sender, SessionId(5));
        let others =
            [session(2, Role::Sender, 5), session(1, Role::Receiver, 5), session(1, Role::Sender, 6)];
        for other in others.iter().chain([&elsewhere]) {
            assert_eq!(opened(other, datagram.clone()), Err(WireError::Forged));
        }
    }

    #[test]
    fn what_is_not_ours_is_refused_in_order_of_distrust() {
        let good = sealed(&session(1, Role::Sender, 5), 9);
        let with = |at: usize, byte| {
            let mut bad = good.clone();
            bad[at] = byte;
            Header::parse(&bad).unwrap_err().to_string()
        };
        assert_eq!(Header::parse(&good[..47]), Err(WireError::Short(47)));
        assert_eq!(with(0, b'X'), "not a datagram of this protocol");
        assert_eq!(with(4, 9), "version 9 of the protocol, this is version 1");
        assert_eq!(with(5, 2), "sent by neither a sender nor a receiver (2)");
    }

    #[test]
    fn a_counter_counts_once_in_any_order() {
        let mut window = ReplayWindow::default();
        for (counter, is_new) in [
            (0, false),
            (3, true),
            (1, true),
            (3, false),
            (2, true),
            (200, true),
            (73, true),
            (72, false),
            (73, false),
        ] {
            assert_eq!(window.note(counter), is_new, "counter {counter}");
        }
        assert!(window.note(u64::MAX) && !window.note(200) && window.high() == u64::MAX);
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key::from_bytes([7; 32])), "Key(secret)");
        assert_ne!(Key::random().unwrap(), Key::random().unwrap());
    }
}
