//! The files of a frozen disk as one row of blocks, so that they travel between hosts as memory does.
//!
//!   newest layer        next           next
//!   | 0 1 2 3 4 |  | 5 6 7 8 |  | 9 10 ...      blocks of 4,096 bytes; each layer begins a new one
//!
//! A frozen file never changes. A copy of it begins as a hole of the same length; what is known of its
//! blocks stands in a bitmap, as for memory. What the files mean is the hypervisor's affair.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use super::bitmap::{PageBitmap, PageState};
use super::image::is_zero;
use super::{PAGE_BYTES, Page, PageIndex};

/// Files, newest layer first.
#[derive(Debug, Default)]
pub struct Layers(Vec<Layer>);

#[derive(Debug)]
struct Layer {
    file: File,
    bytes: u64,
    /// Its first block in the row.
    first: u32,
}

impl Layer {
    fn blocks(bytes: u64) -> u64 {
        bytes.div_ceil(PAGE_BYTES as u64)
    }

    /// Where a block lies in the file, and how many of its bytes belong to the file.
    fn place(&self, block: PageIndex) -> (u64, usize) {
        let offset = PageIndex(block.0 - self.first).offset();
        (offset, (self.bytes - offset).min(PAGE_BYTES as u64) as usize)
    }
}

impl Layers {
    /// These files, which have their length already.
    ///
    /// # Errors
    /// A file cannot be asked for its length, or all together are longer than 8 TiB.
    pub fn of(files: Vec<File>) -> io::Result<Self> {
        let (mut layers, mut first) = (Vec::new(), 0u64);
        for file in files {
            let bytes = file.metadata()?.len();
            let next = first + Layer::blocks(bytes);
            if next > u64::from(u32::MAX >> 1) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the disk's layers are over 8 TiB"));
            }
            layers.push(Layer { file, bytes, first: first as u32 });
            first = next;
        }
        Ok(Self(layers))
    }

    /// Blocks of all files.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.0.last().map_or(0, |last| last.first + Layer::blocks(last.bytes) as u32)
    }

    /// The files, to hand to another process.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|layer| layer.file.as_fd())
    }

    /// Another handle on the same files.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn duplicate(&self) -> io::Result<Self> {
        Self::of(self.0.iter().map(|layer| layer.file.try_clone()).collect::<Result<_, _>>()?)
    }

    /// Reads a block; what is beyond the end of its file is zeros.
    ///
    /// # Errors
    /// There is no such block, or the file cannot be read.
    pub fn read(&self, block: PageIndex, into: &mut Page) -> io::Result<()> {
        let layer = self.layer_of(block)?;
        let (offset, len) = layer.place(block);
        into[len..].fill(0);
        layer.file.read_exact_at(&mut into[..len], offset)
    }

    /// Writes a block of a copy.
    ///
    /// # Errors
    /// There is no such block, or no room for it.
    pub fn write(&self, block: PageIndex, content: &Page) -> io::Result<()> {
        let layer = self.layer_of(block)?;
        let (offset, len) = layer.place(block);
        layer.file.write_all_at(&content[..len], offset)
    }

    fn layer_of(&self, block: PageIndex) -> io::Result<&Layer> {
        let found = self.0.iter().rfind(|layer| layer.first <= block.0);
        found.filter(|_| block.0 < self.blocks()).ok_or_else(|| {
            let why = format!("block {} is beyond the {} of this disk", block.0, self.blocks());
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })
    }
}

/// A copy of another host's frozen disk, and what is known of its blocks.
#[derive(Debug)]
pub struct DiskCopy {
    /// The files.
    pub layers: Layers,
    /// Which blocks have come; zero blocks stay holes.
    pub present: PageBitmap,
}

impl DiskCopy {
    /// A copy of which nothing is there yet. The files are holes of the right length.
    ///
    /// # Errors
    /// No memory or file descriptor left.
    pub fn new(layers: Layers) -> io::Result<Self> {
        let present = PageBitmap::new(layers.blocks())?;
        Ok(Self { layers, present })
    }

    /// The copy that another process made.
    ///
    /// # Errors
    /// The bitmap is too short for the files.
    pub fn open(present: File, layers: Layers) -> io::Result<Self> {
        let present = PageBitmap::open(present, layers.blocks())?;
        Ok(Self { layers, present })
    }

    /// Another handle on the same copy.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn duplicate(&self) -> io::Result<Self> {
        Self::open(self.present.file().try_clone()?, self.layers.duplicate()?)
    }

    /// What another process needs to have the same copy.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.present.file().as_fd()).chain(self.layers.fds())
    }

    /// Puts a block in.
    ///
    /// # Errors
    /// As for [`Layers::write`].
    pub fn keep(&self, block: PageIndex, content: &Page) -> io::Result<()> {
        if is_zero(content) {
            self.present.insert_zero(block);
        } else {
            self.layers.write(block, content)?;
            self.present.insert(block);
        }
        Ok(())
    }

    /// Blocks that are still to come.
    pub fn absent(&self) -> impl Iterator<Item = PageIndex> + '_ {
        (0..self.present.pages())
            .map(PageIndex)
            .filter(|block| self.present.state(*block) == PageState::Absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::memfd;

    fn layers(bytes: &[u64]) -> Layers {
        Layers::of(bytes.iter().map(|bytes| memfd("layer", *bytes).unwrap()).collect()).unwrap()
    }

    #[test]
    fn each_layer_begins_a_block_and_its_last_one_may_be_short() {
        let layers = layers(&[4_097, 0, 8_192]);
        assert_eq!(layers.blocks(), 4);
        layers.write(PageIndex(1), &[7; PAGE_BYTES]).unwrap();
        layers.write(PageIndex(2), &[8; PAGE_BYTES]).unwrap();
        let mut found = [9; PAGE_BYTES];
        layers.read(PageIndex(1), &mut found).unwrap();
        assert_eq!((found[0], found[1], found[PAGE_BYTES - 1]), (7, 0, 0));
        layers.read(PageIndex(2), &mut found).unwrap();
        assert_eq!(found, [8; PAGE_BYTES]);
        let lengths: Vec<u64> = layers.0.iter().map(|layer| layer.file.metadata().unwrap().len()).collect();
        assert_eq!(lengths, [4_097, 0, 8_192], "no file has grown");
    }

    #[test]
    fn a_block_beyond_the_end_is_an_error() {
        let mut found = [0; PAGE_BYTES];
        let said = layers(&[4_096]).read(PageIndex(1), &mut found).unwrap_err().to_string();
        assert_eq!(said, "block 1 is beyond the 1 of this disk");
        assert!(Layers::default().write(PageIndex(0), &found).is_err());
    }

    #[test]
    fn what_has_come_to_a_copy_is_known_to_every_handle_on_it() {
        let copy = DiskCopy::new(layers(&[8_192, 4_096])).unwrap();
        let other = copy.duplicate().unwrap();
        other.keep(PageIndex(0), &[3; PAGE_BYTES]).unwrap();
        other.keep(PageIndex(2), &[0; PAGE_BYTES]).unwrap();
        assert_eq!(copy.absent().collect::<Vec<_>>(), [PageIndex(1)]);
        let mut found = [0; PAGE_BYTES];
        copy.layers.read(PageIndex(0), &mut found).unwrap();
        assert_eq!(found, [3; PAGE_BYTES]);
    }
}
