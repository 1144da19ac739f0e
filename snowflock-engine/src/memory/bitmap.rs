//! The page presence bitmap: one bit a page, in memory shared by all processes
//! that serve one checkpoint.
//!
//! A set bit means: the image file holds the page, and its content is final.
//! It is set after the content is written (release) and read before the content
//! is relied upon (acquire), across processes.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use bitvec::prelude::{BitSlice, Lsb0};

use super::PageIndex;
use crate::sys::memory::{SharedWords, memfd};

/// A bitmap over the pages of one guest.
#[derive(Debug)]
pub struct PageBitmap {
    file: File,
    words: SharedWords,
    pages: u32,
}

impl PageBitmap {
    /// A new one, all clear.
    ///
    /// # Errors
    /// No memory or file descriptor left.
    pub fn new(pages: u32) -> io::Result<Self> {
        let file = memfd("flurry-presence", words(pages) as u64 * 8)?;
        Self::open(file, pages)
    }

    /// The bitmap that another process made.
    ///
    /// # Errors
    /// The file is too short for so many pages.
    pub fn open(file: File, pages: u32) -> io::Result<Self> {
        let words = SharedWords::map(&file, words(pages))?;
        Ok(Self { file, words, pages })
    }

    fn bits(&self) -> &BitSlice<AtomicU64, Lsb0> {
        &BitSlice::from_slice(self.words.words())[..self.pages as usize]
    }

    /// Whether the bit is set. Pages beyond the end are not.
    #[must_use]
    pub fn contains(&self, page: PageIndex) -> bool {
        let set = self.bits().get(page.0 as usize).is_some_and(|bit| *bit);
        fence(Ordering::Acquire);
        set
    }

    /// Sets the bit; `true` if this call was the one that set it.
    pub fn insert(&self, page: PageIndex) -> bool {
        if page.0 >= self.pages {
            return false;
        }
        // The view offers no test-and-set, so the word is changed itself; `Lsb0` gives the bit's place.
        let (word, bit) = (page.0 as usize / 64, page.0 % 64);
        let before = self.words.words()[word].fetch_or(1 << bit, Ordering::Release);
        before >> bit & 1 == 0
    }

    /// Bits set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.bits().count_ones() as u32
    }

    /// Pages that the bitmap covers.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// The clear ones, in order.
    pub fn absent(&self) -> impl Iterator<Item = PageIndex> + '_ {
        self.bits().iter_zeros().map(|index| PageIndex(index as u32))
    }

    /// The file behind it, to hand to another process.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn words(pages: u32) -> usize {
    (pages as usize).div_ceil(64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_mappings_of_one_bitmap_see_each_other() {
        let ours = PageBitmap::new(130).unwrap();
        let theirs = PageBitmap::open(ours.file().try_clone().unwrap(), 130).unwrap();
        assert!(ours.insert(PageIndex(129)));
        assert!(theirs.contains(PageIndex(129)));
        assert!(!theirs.insert(PageIndex(129)), "it was set already");
    }

    #[test]
    fn only_one_of_many_threads_is_told_that_it_set_a_bit() {
        let bitmap = PageBitmap::new(1000).unwrap();
        let winners: u32 = std::thread::scope(|scope| {
            let run = || (0..1000).filter(|i| bitmap.insert(PageIndex(*i))).count() as u32;
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!((winners, bitmap.count()), (1000, 1000));
    }

    #[test]
    fn a_file_too_short_is_refused() {
        let file = memfd("short", 8).unwrap();
        assert!(PageBitmap::open(file, 65).is_err());
    }

    proptest! {
        #[test]
        fn it_holds_exactly_what_was_inserted(pages in 1u32..500, some in prop::collection::btree_set(0u32..600, 0..100)) {
            let bitmap = PageBitmap::new(pages).unwrap();
            for page in &some { bitmap.insert(PageIndex(*page)); }
            let inside = some.iter().filter(|p| **p < pages).count() as u32;
            prop_assert_eq!(bitmap.count(), inside);
            prop_assert_eq!(bitmap.absent().count() as u32, pages - inside);
        }
    }
}
