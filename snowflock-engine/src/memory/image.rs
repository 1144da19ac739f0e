//! The image file of a checkpoint on one host: guest memory as it was, filled
//! page by page as clones ask for it, and mapped privately by every clone.
//!
//! Several processes fill it (memtap, and the memserver on the parent's host).
//! They only ever write what the page held at the checkpoint, so two of them
//! may write the same page at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::bitmap::{PageBitmap, PageState};
use super::{PAGE_BYTES, Page, PageIndex};
use crate::sys::memory::{data_ranges, memfd};

/// An image file with its presence bitmap.
#[derive(Debug)]
pub struct Image {
    file: File,
    present: PageBitmap,
}

impl Image {
    /// A new one, all holes.
    ///
    /// # Errors
    /// No memory or file descriptor left.
    pub fn new(pages: u32) -> io::Result<Self> {
        let file = memfd("flurry-image", u64::from(pages) * PAGE_BYTES as u64)?;
        Ok(Self { file, present: PageBitmap::new(pages)? })
    }

    /// The image that another process made.
    ///
    /// # Errors
    /// The bitmap is too short for the file.
    pub fn open(file: File, present: File) -> io::Result<Self> {
        let pages = (file.metadata()?.len() / PAGE_BYTES as u64) as u32;
        Ok(Self { file, present: PageBitmap::open(present, pages)? })
    }

    /// Another handle on the same image.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn duplicate(&self) -> io::Result<Self> {
        Self::open(self.file.try_clone()?, self.present.file().try_clone()?)
    }

    /// Puts a page in; `true` if it was not there before.
    ///
    /// # Errors
    /// The page is outside of the image, or no memory is left for it.
    pub fn fill(&self, page: PageIndex, content: &Page) -> io::Result<bool> {
        self.check(page)?;
        self.file.write_all_at(content, page.offset())?;
        Ok(self.present.insert(page))
    }

    /// Keeps what a page held: zeros as a mark only. `true` if nothing was known of it before.
    ///
    /// # Errors
    /// As for [`Image::fill`].
    pub fn keep(&self, page: PageIndex, content: &Page) -> io::Result<bool> {
        match is_zero(content) {
            false => self.fill(page, content),
            true => {
                self.check(page)?;
                Ok(self.present.insert_zero(page))
            }
        }
    }

    /// A page beyond the end would make the image longer.
    pub(super) fn check(&self, page: PageIndex) -> io::Result<()> {
        match page.0 < self.present.pages() {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("page {} is beyond the {} pages of this guest", page.0, self.present.pages()),
            )),
        }
    }

    /// Reads a page that is present.
    ///
    /// # Errors
    /// The page is outside of the image.
    pub fn read(&self, page: PageIndex, into: &mut Page) -> io::Result<()> {
        self.file.read_exact_at(into, page.offset())
    }

    /// What is known of a page.
    #[must_use]
    pub fn state(&self, page: PageIndex) -> PageState {
        self.present.state(page)
    }

    /// Pages that are in.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.present.count()
    }

    /// The presence bitmap.
    #[must_use]
    pub fn present(&self) -> &PageBitmap {
        &self.present
    }

    /// The image file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Sets the bits of all pages that are in the file, for a successor of a
    /// process that died between writing a page and saying so.
    ///
    /// # Errors
    /// The file cannot be searched.
    pub fn recount(&self) -> io::Result<()> {
        for range in data_ranges(&self.file)? {
            let pages = range.start / PAGE_BYTES as u64..range.end.div_ceil(PAGE_BYTES as u64);
            for page in pages {
                self.present.insert(PageIndex(page as u32));
            }
        }
        Ok(())
    }
}

/// Whether a page is all zeros.
#[must_use]
pub fn is_zero(page: &Page) -> bool {
    // The compiler makes wide compares of this.
    page.chunks_exact(64).all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_page_is_read_back_and_counted_once() {
        let image = Image::new(8).unwrap();
        assert!(image.fill(PageIndex(3), &[7; PAGE_BYTES]).unwrap());
        assert!(!image.fill(PageIndex(3), &[7; PAGE_BYTES]).unwrap());
        let mut page = [0; PAGE_BYTES];
        image.read(PageIndex(3), &mut page).unwrap();
        assert_eq!((page, image.count()), ([7; PAGE_BYTES], 1));
    }

    #[test]
    fn a_successor_finds_the_pages_that_were_written_but_not_announced() {
        let image = Image::new(64).unwrap();
        image.file().write_all_at(&[1; 2 * PAGE_BYTES], PageIndex(5).offset()).unwrap();
        image.file().write_all_at(&[1; PAGE_BYTES], PageIndex(63).offset()).unwrap();
        image.recount().unwrap();
        let found: Vec<u32> = (0..64).filter(|i| image.state(PageIndex(*i)) == PageState::Present).collect();
        assert_eq!(found, [5, 6, 63]);
    }

    #[test]
    fn a_page_of_zeros_is_kept_without_memory() {
        let image = Image::new(4).unwrap();
        assert!(image.keep(PageIndex(2), &[0; PAGE_BYTES]).unwrap());
        assert!(image.keep(PageIndex(3), &[1; PAGE_BYTES]).unwrap());
        assert_eq!((image.state(PageIndex(2)), image.count()), (PageState::Zero, 1));
        image.recount().unwrap();
        assert_eq!(image.count(), 1, "the hole is still one");
    }

    #[test]
    fn a_page_beyond_the_end_does_not_make_the_image_longer() {
        let image = Image::new(4).unwrap();
        for content in [[0; PAGE_BYTES], [1; PAGE_BYTES]] {
            let error = image.keep(PageIndex(4), &content).unwrap_err();
            assert_eq!(error.to_string(), "page 4 is beyond the 4 pages of this guest");
        }
        assert_eq!(image.file().metadata().unwrap().len(), 4 * PAGE_BYTES as u64);
        assert!(image.read(PageIndex(4), &mut [0; PAGE_BYTES]).is_err());
    }

    #[test]
    fn an_image_whose_bitmap_is_too_short_is_refused() {
        let (long, short) = (Image::new(6_400).unwrap(), Image::new(64).unwrap());
        let opened =
            Image::open(long.file().try_clone().unwrap(), short.present().file().try_clone().unwrap());
        assert_eq!(opened.unwrap_err().to_string(), "file shorter than its mapping");
    }
}
