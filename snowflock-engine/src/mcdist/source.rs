//! Where a sender's pages come from, and where a receiver's go.

use std::io;

use super::geometry::{PageRef, StreamId};
use crate::memory::Page;
use crate::memory::frozen::{Content, FrozenView};
use crate::memory::image::is_zero;
use crate::memory::layers::Layers;

/// The frozen pages that a sender distributes. They never change.
pub trait PageSource {
    /// Reads a page; `false` if it is all zeros, and then the buffer holds anything.
    ///
    /// # Errors
    /// The page cannot be had.
    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<bool>;
}

/// What a receiver found out about a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Its content.
    Data(&'a [u8]),
    /// It is all zeros.
    Zero,
    /// It is the same as another page, which was put before.
    Same(PageRef),
}

/// The pages that a receiver has.
pub trait PageStore {
    /// Puts a page that was missing.
    ///
    /// # Errors
    /// There is no room for it; it is still missing then.
    fn put(&mut self, page: PageRef, found: Found<'_>) -> io::Result<()>;

    /// Reads a page that was put before.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<()>;
}

/// A checkpoint: guest memory, and the layers of its disk.
#[derive(Debug)]
pub struct CheckpointSource {
    /// The memory.
    pub memory: FrozenView,
    /// The disk, as a stream of its own.
    pub disk: Layers,
}

impl PageSource for CheckpointSource {
    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<bool> {
        if page.stream == StreamId::MEMORY {
            return PageSource::read(&mut self.memory, page, into);
        }
        let block: &mut Page = into.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        self.disk.read(page.page, block)?;
        Ok(!is_zero(block))
    }
}

/// Guest memory alone.
impl PageSource for FrozenView {
    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<bool> {
        let buffer: &mut Page = into.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        match FrozenView::read(self, page.page, buffer)? {
            Content::Zero => Ok(false),
            Content::Read => Ok(true),
            Content::InImage => {
                self.image.read(page.page, buffer)?;
                Ok(!is_zero(buffer))
            }
        }
    }
}
