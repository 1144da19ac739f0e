//! What tests put into pages: a function of a seed and the page, so that any
//! process can tell whether a page is right.

use crate::memory::{PAGE_BYTES, Page, PageIndex};

/// 64-bit words of a page.
pub const PAGE_WORDS: usize = PAGE_BYTES / 8;

/// Fills a page with zeros.
pub const ZERO: u64 = 0;

/// The word at this place of a page that was written with `seed`; [`ZERO`] gives zero pages.
#[must_use]
pub fn word(seed: u64, page: PageIndex, place: usize) -> u64 {
    match seed {
        ZERO => 0,
        seed => mix(mix(seed ^ u64::from(page.0) << 20).wrapping_add(place as u64)) | 1,
    }
}

/// The whole page.
#[must_use]
pub fn page(seed: u64, page: PageIndex) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    for (place, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&word(seed, page, place).to_ne_bytes());
    }
    bytes
}

/// The pages of `[first, first + count)` in an order that depends on the seed; 0 is ascending.
#[must_use]
pub fn shuffled(first: u32, count: u32, order: u64) -> Vec<PageIndex> {
    let mut pages: Vec<PageIndex> = (first..first.saturating_add(count)).map(PageIndex).collect();
    if order != 0 {
        for last in (1..pages.len()).rev() {
            pages.swap(last, (mix(order ^ (last as u64) << 1) % (last as u64 + 1)) as usize);
        }
    }
    pages
}

/// A step of a random walk over all 64-bit numbers (the finaliser of splitmix64, Steele et al. 2014).
#[must_use]
pub fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_differ_by_seed_and_place_and_only_the_zero_seed_gives_zeros() {
        let of = |seed, index| page(seed, PageIndex(index));
        assert_ne!(of(1, 0), of(2, 0));
        assert_ne!(of(1, 0), of(1, 1));
        assert_eq!(of(ZERO, 9), [0; PAGE_BYTES]);
        assert!((0..PAGE_WORDS).all(|place| word(7, PageIndex(3), place) != 0));
    }

    #[test]
    fn an_order_holds_every_page_once() {
        let mut pages = shuffled(5, 100, 77);
        assert_ne!(pages, shuffled(5, 100, 0));
        pages.sort_unstable();
        assert_eq!(pages, shuffled(5, 100, 0));
    }
}
