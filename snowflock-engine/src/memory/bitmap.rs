//! The page presence bitmap: what is known of each page of a checkpoint, in
//! memory shared by all processes that serve it.
//!
//!   absent --insert--> present   the image file holds the page, and its content is final
//!   absent --insert_zero--> zero --insert--> present
//!                                the page was all zeros; the image keeps its hole
//!
//! A bit is set after the content is written (release) and read before the
//! content is relied upon (acquire), across processes.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use bitvec::prelude::{BitSlice, Lsb0};

use super::PageIndex;
use crate::sys::memory::{SharedWords, memfd};

/// What is known of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// Nothing.
    Absent,
    /// It is all zeros, and a hole in the image.
    Zero,
    /// It is in the image.
    Present,
}

/// A bitmap over the pages of one guest.
#[derive(Debug)]
pub struct PageBitmap {
    file: File,
    /// The bits of present pages, then those of zero pages.
    words: SharedWords,
    pages: u32,
}

impl PageBitmap {
    /// A new one, all absent.
    ///
    /// # Errors
    /// No memory or file descriptor left.
    pub fn new(pages: u32) -> io::Result<Self> {
        let file = memfd("flurry-presence", 2 * words(pages) as u64 * 8)?;
        Self::open(file, pages)
    }

    /// The bitmap that another process made.
    ///
    /// # Errors
    /// The file is too short for so many pages.
    pub fn open(file: File, pages: u32) -> io::Result<Self> {
        let words = SharedWords::map(&file, 2 * words(pages))?;
        Ok(Self { file, words, pages })
    }

    fn present(&self) -> &BitSlice<AtomicU64, Lsb0> {
        &BitSlice::from_slice(&self.words.words()[..words(self.pages)])[..self.pages as usize]
    }

    fn zero(&self) -> &BitSlice<AtomicU64, Lsb0> {
        &BitSlice::from_slice(&self.words.words()[words(self.pages)..])[..self.pages as usize]
    }

    /// What is known of a page. Pages beyond the end are absent.
    #[must_use]
    pub fn state(&self, page: PageIndex) -> PageState {
        let is_set = |bits: &BitSlice<AtomicU64, Lsb0>| bits.get(page.0 as usize).is_some_and(|bit| *bit);
        let state = match is_set(self.present()) {
            true => PageState::Present,
            false if is_set(self.zero()) => PageState::Zero,
            false => PageState::Absent,
        };
        fence(Ordering::Acquire);
        state
    }

    /// Marks a page as present; `true` if this call was the one that did.
    pub fn insert(&self, page: PageIndex) -> bool {
        self.set(page, 0)
    }

    /// Marks a page as zero; `true` if this call was the one that did.
    pub fn insert_zero(&self, page: PageIndex) -> bool {
        self.set(page, words(self.pages))
    }

    fn set(&self, page: PageIndex, first_word: usize) -> bool {
        if page.0 >= self.pages {
            return false;
        }
        // The view offers no test-and-set, so the word is changed itself; `Lsb0` gives the bit's place.
        let (word, bit) = (first_word + page.0 as usize / 64, page.0 % 64);
        let before = self.words.words()[word].fetch_or(1 << bit, Ordering::Release);
        before >> bit & 1 == 0
    }

    /// Present pages.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.present().count_ones() as u32
    }

    /// The share, 0 to 1, of some pages of which something is known; `None` of no pages.
    #[must_use]
    pub fn share_of(&self, pages: &[PageIndex]) -> Option<f64> {
        let known = |page: &&PageIndex| self.state(**page) != PageState::Absent;
        (!pages.is_empty()).then(|| pages.iter().filter(known).count() as f64 / pages.len() as f64)
    }

    /// Pages that the bitmap covers.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// The absent ones, in order.
    pub fn absent(&self) -> impl Iterator<Item = PageIndex> + '_ {
        let not_present = self.present().iter_zeros().map(|index| PageIndex(index as u32));
        not_present.filter(|page| self.state(*page) == PageState::Absent)
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
        assert_eq!(theirs.state(PageIndex(129)), PageState::Present);
        assert_eq!(theirs.state(PageIndex(130)), PageState::Absent, "beyond the end");
        assert!(!theirs.insert(PageIndex(129)), "it was set already");
    }

    #[test]
    fn a_share_counts_zero_pages_and_none_beyond_the_end() {
        let bitmap = PageBitmap::new(100).unwrap();
        assert_eq!(bitmap.share_of(&[]), None);
        let wanted = [3, 70, 99, 100].map(PageIndex);
        assert_eq!(bitmap.share_of(&wanted), Some(0.0));
        bitmap.insert(PageIndex(3));
        bitmap.insert_zero(PageIndex(99));
        assert_eq!(bitmap.share_of(&wanted), Some(0.5));
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
        let file = memfd("short", 31).unwrap();
        assert!(PageBitmap::open(file, 65).is_err());
    }

    #[test]
    fn a_zero_page_is_neither_absent_nor_counted_until_it_is_put_in() {
        let bitmap = PageBitmap::new(3).unwrap();
        assert!(bitmap.insert_zero(PageIndex(1)) && !bitmap.insert_zero(PageIndex(1)));
        assert_eq!((bitmap.state(PageIndex(1)), bitmap.count()), (PageState::Zero, 0));
        assert_eq!(bitmap.absent().collect::<Vec<_>>(), [PageIndex(0), PageIndex(2)]);
        assert!(bitmap.insert(PageIndex(1)));
        assert_eq!((bitmap.state(PageIndex(1)), bitmap.count()), (PageState::Present, 1));
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
