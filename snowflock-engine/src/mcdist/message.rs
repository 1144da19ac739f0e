//! What sender and receivers say to each other. PROTOCOL.md has the byte table.

use std::time::Duration;

use super::geometry::{GROUP_PAGES, Geometry, Group, LANES, Lane, PageRef, Place, StreamId};
use super::seal::{SessionId, VERSION};
use crate::memory::PageIndex;

/// Entries of a notice at most, so that it fits into the smallest MTU.
pub const MAX_NOTICES: usize = 96;
/// Pages of one zero run at most.
pub const MAX_RUN: u16 = 16_384;
/// Pages that one request can ask for urgently, and ahead.
pub const MAX_URGENT: usize = 32;
/// See [`MAX_URGENT`].
pub const MAX_AHEAD: usize = 96;
/// Groups that one request can tell the missing pages of.
pub const MAX_GROUPS: usize = 24;
/// A greeting is as long as the longest answer to it, so nobody gains by a false address.
pub const HELLO_BYTES: usize = 160;

/// Why a datagram is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No room for header and seal.
    #[error("{0} bytes are too short for a datagram")]
    Short(usize),
    /// The magic is missing.
    #[error("not a datagram of this protocol")]
    Foreign,
    /// Another version.
    #[error("version {0} of the protocol, this is version {VERSION}")]
    Version(u8),
    /// The role is none.
    #[error("sent by neither a sender nor a receiver ({0})")]
    Role(u8),
    /// It is about another checkpoint, or from one of our own kind.
    #[error("not for us")]
    Elsewhere,
    /// The seal is wrong.
    #[error("the seal is wrong")]
    Forged,
    /// Its counter has come before.
    #[error("played again")]
    Replayed,
    /// The seal is right and the content is not.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A page that does not exist.
    #[error("page {1} of stream {0} does not exist")]
    NoSuchPage(u8, u32),
    /// No room for another receiver in this life of the sender.
    #[error("too many receivers")]
    Full,
}

/// What a sender says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSender<'a> {
    /// Answer to a greeting, and to a request that names another life of the sender.
    Welcome {
        /// Who greeted.
        session: SessionId,
        /// With which datagram.
        counter: u64,
        /// How often to report.
        report_every: Duration,
        /// The sender's streams, to be compared.
        streams: Vec<(StreamId, u32)>,
    },
    /// A page, or a piece of one.
    Page {
        /// Which.
        place: Place,
        /// How much of it.
        lane: Lane,
        /// The content.
        data: &'a [u8],
    },
    /// Stands for any one page of its group.
    Repair {
        /// Which group.
        group: Group,
        /// Which of the group's repairs.
        index: u8,
        /// Pages that it covers; others count as zeros in it.
        covers: u128,
        /// How much of it.
        lane: Lane,
        /// The content.
        data: &'a [u8],
    },
    /// Pages that need no content.
    Notice(Vec<Notice>),
    /// The sender lives, and datagrams before this one are lost or late.
    Beat {
        /// How often to report.
        report_every: Duration,
    },
}

/// Pages that need no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// All zeros.
    Zero {
        /// The first of them.
        first: Place,
        /// How many, within one stream.
        count: u16,
    },
    /// The same as another page.
    Same {
        /// This one.
        place: Place,
        /// Holds what that one holds, which is never itself the same as a third.
        of: Place,
    },
}

/// What a receiver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromReceiver {
    /// Who are you?
    Hello,
    /// What came, and what is missing.
    Request(Request),
    /// Nothing more is wanted.
    Bye {
        /// To which life of the sender.
        epoch: SessionId,
    },
}

/// What came on one channel: all that a sender needs to tell loss from delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// The highest counter that came.
    pub high: u64,
    /// Datagrams that came.
    pub count: u64,
}

/// The missing pages of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Which group.
    pub group: Group,
    /// Its missing pages.
    pub pages: u128,
    /// Repairs that came: so many pages fewer are needed.
    pub held: u8,
}

/// An urgent page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Urgent {
    /// Which.
    pub place: Place,
    /// It was asked for before, and the answer is overdue.
    pub again: bool,
}

/// A receiver's report and wishes. All of it may be repeated: nothing is counted up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The life of the sender that it means.
    pub epoch: SessionId,
    /// Number of the report; several datagrams may share one.
    pub report: u32,
    /// Multicast has been heard lately.
    pub hears: bool,
    /// Everything is wanted, not only what is named.
    pub fills: bool,
    /// What came by multicast.
    pub multicast: Received,
    /// What came for this receiver alone.
    pub unicast: Received,
    /// Receive rate, bytes a second.
    pub rate: u64,
    /// Pages still missing.
    pub missing: u32,
    /// Pages that a guest waits for.
    pub urgent: Vec<Urgent>,
    /// Pages that will soon be touched, in this order.
    pub ahead: Vec<Place>,
    /// Groups of which some pages came.
    pub groups: Vec<Missing>,
    /// Groups of which none came: the first, and how many.
    pub untouched: (Group, u16),
}

impl Request {
    /// One that wishes nothing.
    #[must_use]
    pub fn empty(epoch: SessionId) -> Self {
        Self {
            epoch,
            report: 0,
            hears: false,
            fills: false,
            multicast: Received::default(),
            unicast: Received::default(),
            rate: 0,
            missing: 0,
            urgent: Vec::new(),
            ahead: Vec::new(),
            groups: Vec::new(),
            untouched: (Group(0), 0),
        }
    }
}

const WELCOME: u8 = 1;
const PAGE: u8 = 2;
const REPAIR: u8 = 3;
const NOTICE: u8 = 4;
const BEAT: u8 = 5;
const HELLO: u8 = 65;
const REQUEST: u8 = 66;
const BYE: u8 = 67;

const ZERO_RUN: u8 = 0;
const SAME: u8 = 1;

impl FromSender<'_> {
    /// Appends its bytes.
    pub fn encode(&self, geometry: &Geometry, out: &mut Vec<u8>) {
        let mut put = Writer { geometry, out };
        match self {
            Self::Welcome { session, counter, report_every, streams } => {
                put.u8(WELCOME);
                put.u64(session.0);
                put.u64(*counter);
                put.millis(*report_every);
                put.u8(streams.len() as u8);
                for (stream, pages) in streams {
                    put.u8(stream.0);
                    put.u32(*pages);
                }
            }
            Self::Page { place, lane, data } => {
                put.u8(PAGE);
                put.lane(*lane);
                put.place(*place);
                put.out.extend_from_slice(data);
            }
            Self::Repair { group, index, covers, lane, data } => {
                put.u8(REPAIR);
                put.lane(*lane);
                put.group(*group);
                put.u8(*index);
                put.u128(*covers);
                put.out.extend_from_slice(data);
            }
            Self::Notice(notices) => {
                put.u8(NOTICE);
                put.u8(notices.len() as u8);
                for notice in notices {
                    put.notice(notice);
                }
            }
            Self::Beat { report_every } => {
                put.u8(BEAT);
                put.millis(*report_every);
            }
        }
    }
}

impl<'a> FromSender<'a> {
    /// Reads one whose seal was right.
    ///
    /// # Errors
    /// It is malformed, or about pages that do not exist.
    pub fn decode(geometry: &Geometry, bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut take = Reader { geometry, bytes };
        let message = match take.u8()? {
            WELCOME => Self::Welcome {
                session: SessionId(take.u64()?),
                counter: take.u64()?,
                report_every: take.millis()?,
                streams: take.streams()?,
            },
            PAGE => {
                let lane = take.lane()?;
                Self::Page { place: take.place()?, lane, data: take.share(lane)? }
            }
            REPAIR => {
                let lane = take.lane()?;
                let group = take.group()?;
                let (index, covers) = (take.u8()?, take.u128()?);
                if index >= GROUP_PAGES as u8 || covers & !geometry.mask(group) != 0 {
                    return Err(WireError::Malformed("a repair outside of its group"));
                }
                Self::Repair { group, index, covers, lane, data: take.share(lane)? }
            }
            NOTICE => {
                let count = take.count(MAX_NOTICES)?;
                Self::Notice((0..count).map(|_| take.notice()).collect::<Result<_, _>>()?)
            }
            BEAT => Self::Beat { report_every: take.millis()? },
            _ => return Err(WireError::Malformed("an unknown kind of message")),
        };
        take.end(message)
    }
}

impl FromReceiver {
    /// Appends its bytes.
    pub fn encode(&self, geometry: &Geometry, out: &mut Vec<u8>) {
        let mut put = Writer { geometry, out };
        match self {
            Self::Hello => {
                put.u8(HELLO);
                put.out.resize(put.out.len() + HELLO_BYTES - 1, 0);
            }
            Self::Request(request) => {
                put.u8(REQUEST);
                put.request(request);
            }
            Self::Bye { epoch } => {
                put.u8(BYE);
                put.u64(epoch.0);
            }
        }
    }

    /// Reads one whose seal was right.
    ///
    /// # Errors
    /// It is malformed, or asks for pages that do not exist.
    pub fn decode(geometry: &Geometry, bytes: &[u8]) -> Result<Self, WireError> {
        let mut take = Reader { geometry, bytes };
        let message = match take.u8()? {
            HELLO => {
                let filler = take.slice(HELLO_BYTES - 1)?;
                if filler.iter().any(|byte| *byte != 0) {
                    return Err(WireError::Malformed("a greeting is filled with zeros"));
                }
                Self::Hello
            }
            REQUEST => Self::Request(take.request()?),
            BYE => Self::Bye { epoch: SessionId(take.u64()?) },
            _ => return Err(WireError::Malformed("an unknown kind of message")),
        };
        take.end(message)
    }
}

struct Writer<'g, 'o> {
    geometry: &'g Geometry,
    out: &'o mut Vec<u8>,
}

impl Writer<'_, '_> {
    fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u128(&mut self, value: u128) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn millis(&mut self, value: Duration) {
        self.u16(u16::try_from(value.as_millis()).unwrap_or(u16::MAX));
    }

    fn lane(&mut self, lane: Lane) {
        self.u8(match lane {
            Lane::Whole => 0,
            Lane::Part(part) => part + 1,
        });
    }

    fn place(&mut self, place: Place) {
        let page = self.geometry.page(place);
        let PageRef { stream, page } =
            page.unwrap_or(PageRef { stream: StreamId(0), page: PageIndex(u32::MAX) });
        self.u8(stream.0);
        self.u32(page.0);
    }

    fn group(&mut self, group: Group) {
        self.place(Place(group.0 * GROUP_PAGES));
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Zero { first, count } => {
                self.u8(ZERO_RUN);
                self.place(*first);
                self.u16(*count);
            }
            Notice::Same { place, of } => {
                self.u8(SAME);
                self.place(*place);
                self.place(*of);
            }
        }
    }

    fn request(&mut self, request: &Request) {
        self.u64(request.epoch.0);
        self.u32(request.report);
        self.u8(u8::from(request.hears) | u8::from(request.fills) << 1);
        for received in [request.multicast, request.unicast] {
            self.u64(received.high);
            self.u64(received.count);
        }
        self.u64(request.rate);
        self.u32(request.missing);
        self.u8(request.urgent.len() as u8);
        for urgent in &request.urgent {
            self.u8(u8::from(urgent.again));
            self.place(urgent.place);
        }
        self.u8(request.ahead.len() as u8);
        for place in &request.ahead {
            self.place(*place);
        }
        self.u8(request.groups.len() as u8);
        for missing in &request.groups {
            self.group(missing.group);
            self.u128(missing.pages);
            self.u8(missing.held);
        }
        self.u16(request.untouched.1);
        if request.untouched.1 > 0 {
            self.group(request.untouched.0);
        }
    }
}

struct Reader<'g, 'b> {
    geometry: &'g Geometry,
    bytes: &'b [u8],
}

impl<'b> Reader<'_, 'b> {
    fn slice(&mut self, len: usize) -> Result<&'b [u8], WireError> {
        let (taken, rest) =
            self.bytes.split_at_checked(len).ok_or(WireError::Malformed("it ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn u128(&mut self) -> Result<u128, WireError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    fn millis(&mut self) -> Result<Duration, WireError> {
        Ok(Duration::from_millis(self.u16()?.into()))
    }

    fn count(&mut self, limit: usize) -> Result<usize, WireError> {
        let count = usize::from(self.u8()?);
        if count > limit { Err(WireError::Malformed("a list beyond its limit")) } else { Ok(count) }
    }

    fn flags(&mut self, known: u8) -> Result<u8, WireError> {
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(WireError::Malformed("an unknown flag")) }
    }

    fn lane(&mut self) -> Result<Lane, WireError> {
        match self.u8()? {
            0 => Ok(Lane::Whole),
            part if usize::from(part) <= LANES => Ok(Lane::Part(part - 1)),
            _ => Err(WireError::Malformed("an unknown piece of a page")),
        }
    }

    /// The rest of the message, which is a share of a page.
    fn share(&mut self, lane: Lane) -> Result<&'b [u8], WireError> {
        let share = self.slice(self.geometry.share_bytes(lane));
        share.map_err(|_| WireError::Malformed("a page of another length"))
    }

    fn place(&mut self) -> Result<Place, WireError> {
        let (stream, page) = (self.u8()?, self.u32()?);
        let place = self.geometry.place(PageRef { stream: StreamId(stream), page: PageIndex(page) });
        place.ok_or(WireError::NoSuchPage(stream, page))
    }

    fn group(&mut self) -> Result<Group, WireError> {
        let first = self.place()?;
        match first.0 % GROUP_PAGES {
            0 => Ok(first.group()),
            _ => Err(WireError::Malformed("a group is named by its first page")),
        }
    }

    fn notice(&mut self) -> Result<Notice, WireError> {
        match self.u8()? {
            ZERO_RUN => {
                let (first, count) = (self.place()?, self.u16()?);
                let last = Place(first.0 + u32::from(count.max(1)) - 1);
                let stream = |place| self.geometry.page(place).map(|page| page.stream);
                if count == 0 || count > MAX_RUN || stream(last) != stream(first) {
                    return Err(WireError::Malformed("a run of zeros beyond its stream"));
                }
                Ok(Notice::Zero { first, count })
            }
            SAME => {
                let (place, of) = (self.place()?, self.place()?);
                if place == of {
                    return Err(WireError::Malformed("a page that is the same as itself"));
                }
                Ok(Notice::Same { place, of })
            }
            _ => Err(WireError::Malformed("an unknown kind of notice")),
        }
    }

    fn streams(&mut self) -> Result<Vec<(StreamId, u32)>, WireError> {
        let count = self.count(super::geometry::MAX_STREAMS)?;
        (0..count).map(|_| Ok((StreamId(self.u8()?), self.u32()?))).collect()
    }

    fn received(&mut self) -> Result<Received, WireError> {
        let (high, count) = (self.u64()?, self.u64()?);
        if count > high {
            return Err(WireError::Malformed("more datagrams came than were sent"));
        }
        Ok(Received { high, count })
    }

    fn missing(&mut self) -> Result<Missing, WireError> {
        let missing = Missing { group: self.group()?, pages: self.u128()?, held: self.u8()? };
        if missing.pages & !self.geometry.mask(missing.group) != 0 {
            return Err(WireError::Malformed("missing pages that do not exist"));
        }
        Ok(missing)
    }

    fn urgent(&mut self) -> Result<Urgent, WireError> {
        let again = self.flags(1)? == 1;
        Ok(Urgent { place: self.place()?, again })
    }

    fn untouched(&mut self) -> Result<(Group, u16), WireError> {
        let count = self.u16()?;
        if count == 0 {
            return Ok((Group(0), 0));
        }
        let first = self.group()?;
        if first.0 + u32::from(count) > self.geometry.groups() {
            return Err(WireError::Malformed("untouched groups that do not exist"));
        }
        Ok((first, count))
    }

    fn request(&mut self) -> Result<Request, WireError> {
        let mut request = Request::empty(SessionId(self.u64()?));
        request.report = self.u32()?;
        let flags = self.flags(3)?;
        (request.hears, request.fills) = (flags & 1 != 0, flags & 2 != 0);
        (request.multicast, request.unicast) = (self.received()?, self.received()?);
        (request.rate, request.missing) = (self.u64()?, self.u32()?);
        let count = self.count(MAX_URGENT)?;
        request.urgent = (0..count).map(|_| self.urgent()).collect::<Result<_, _>>()?;
        let count = self.count(MAX_AHEAD)?;
        request.ahead = (0..count).map(|_| self.place()).collect::<Result<_, _>>()?;
        let count = self.count(MAX_GROUPS)?;
        request.groups = (0..count).map(|_| self.missing()).collect::<Result<_, _>>()?;
        request.untouched = self.untouched()?;
        Ok(request)
    }

    fn end<T>(self, message: T) -> Result<T, WireError> {
        if self.bytes.is_empty() { Ok(message) } else { Err(WireError::Malformed("bytes behind its end")) }
    }
}

#[cfg(test)]
#[path = "message/tests.rs"]
mod tests;
