//! Netlink messages: numbered, with nested attributes (linux/netlink.h, linux/netfilter/nfnetlink.h).

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;

pub(super) const REQUEST: u16 = 0x01;
pub(super) const ACK: u16 = 0x04;
pub(super) const DUMP: u16 = 0x300;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
/// Attribute numbers have 14 bits.
const KIND: u16 = 0x3fff;

/// Messages in one buffer, numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    names: Vec<&'static str>,
    transaction: bool,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// All or nothing: the kernel answers a refusal of the whole at its first message.
    pub(super) fn transaction() -> Self {
        Self { transaction: true, ..Self::default() }
    }

    /// Adds a message; `name` says in an error what was tried.
    pub(super) fn message(
        &mut self,
        name: &'static str,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.names.push(name);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend((self.names.len() as u32).to_ne_bytes());
        self.bytes.extend([0; 4]);
        fill(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_transaction(&self) -> bool {
        self.transaction
    }

    /// The number of the message whose acknowledgement ends the exchange: of a transaction the last but
    /// one, for its end is not acknowledged.
    pub(super) fn last(&self) -> u32 {
        self.names.len() as u32 - u32::from(self.transaction)
    }

    pub(super) fn name_of(&self, sequence: u32) -> &'static str {
        let index = (sequence as usize).checked_sub(1);
        index.and_then(|index| self.names.get(index)).copied().unwrap_or("netlink")
    }
}

/// The attributes of a message or of another attribute.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Bytes as they are: the fixed part that comes before attributes.
    pub(super) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self.pad();
        self
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
        self
    }

    /// A 32-bit number, in network order as nf_tables has all of its own.
    pub(super) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text with its terminating zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The messages in an answer: kind, sequence number, body.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = word(bytes, 0) as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let message = &bytes[..length];
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([message[4], message[5]]), word(message, 8), &message[HEADER..]))
    })
}

/// The attributes in some bytes: number, value. What is cut short is left out.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = match bytes {
            [a, b, c, d, ..] => (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d])),
            _ => return None,
        };
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & KIND, value))
    })
}

/// The 32-bit word at `at`; 0 beyond the end.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_is_read_back() {
        let mut batch = Batch::new();
        batch.message("test", 7, ACK, |m| {
            m.fixed(&[2, 0, 0, 0]).text(1, "abc").nest(2, |n| {
                n.be32(1, 5).be64(2, 6);
            });
        });
        let (kind, sequence, body) = messages(batch.bytes()).next().unwrap();
        assert_eq!((kind, sequence), (7, 1));
        let read: Vec<_> = attributes(&body[4..]).collect();
        assert_eq!(read[0], (1, b"abc\0".as_slice()));
        let nested: Vec<_> = attributes(read[1].1).collect();
        assert_eq!(nested, [(1, [0, 0, 0, 5].as_slice()), (2, [0, 0, 0, 0, 0, 0, 0, 6].as_slice())]);
    }

    #[test]
    fn an_answer_cut_short_is_read_up_to_the_cut() {
        let mut batch = Batch::new();
        batch.message("one", 1, 0, |m| {
            m.be32(1, 1);
        });
        batch.message("two", 2, 0, |m| {
            m.be32(1, 1);
        });
        for cut in 0..batch.bytes().len() {
            let whole = if cut >= batch.bytes().len() / 2 { 1 } else { 0 };
            assert_eq!(messages(&batch.bytes()[..cut]).count(), whole, "cut at {cut}");
            attributes(&batch.bytes()[..cut]).for_each(drop);
        }
        assert_eq!(batch.name_of(2), "two");
        assert_eq!(batch.name_of(9), "netlink");
    }
}
