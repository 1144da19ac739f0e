//! Numbers that look random and are not: seeded patterns for memory and disk, and the items' work.
//!
//! SplitMix64 and FNV-1a over words: no secrets here, only patterns that no other seed gives, and a
//! digest that shows a single changed byte. Cheap, because an emulated CPU computes them.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01B3;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// So many dependent rounds of mixing.
pub(crate) fn rounds(seed: u64, count: u64) -> u64 {
    let mut value = seed.wrapping_mul(GOLDEN) ^ GOLDEN;
    for _ in 0..count {
        value = mix(value.wrapping_add(GOLDEN));
    }
    value
}

/// Fills `bytes` with the pattern of `seed`, as if it stood at `offset` (a multiple of 8) of a longer one.
pub(crate) fn fill(bytes: &mut [u8], seed: u64, offset: u64) {
    for (index, chunk) in (offset / 8..).zip(bytes.chunks_mut(8)) {
        let word = mix(seed.wrapping_add(index.wrapping_mul(GOLDEN))).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// A digest that can be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(FNV_OFFSET)
    }

    /// Adds bytes. Pieces but the last must be multiples of 8 for the digest not to depend on the cutting.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(FNV_PRIME).rotate_left(29);
        }
    }

    /// The digest in hexadecimal.
    pub(crate) fn hex(self) -> String {
        format!("{:016x}", mix(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> String {
        let mut digest = Digest::new();
        digest.add(bytes);
        digest.hex()
    }

    #[test]
    fn a_pattern_is_the_same_in_one_piece_and_in_many() {
        let (mut whole, mut pieces) = (vec![0; 4096], vec![0; 4096]);
        fill(&mut whole, 5, 0);
        for at in (0..4096).step_by(512) {
            fill(&mut pieces[at..at + 512], 5, at as u64);
        }
        assert_eq!(whole, pieces);
    }

    #[test]
    fn another_seed_or_one_changed_byte_gives_another_digest() {
        let mut bytes = vec![0; 8192];
        fill(&mut bytes, 1, 0);
        let first = digest(&bytes);
        for at in [0, 1, 4095, 4096, 8191] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(digest(&changed), first, "byte {at}");
        }
        fill(&mut bytes, 2, 0);
        assert_ne!(digest(&bytes), first);
    }

    #[test]
    fn two_pages_swapped_give_another_digest() {
        let mut bytes = vec![0; 8192];
        fill(&mut bytes, 1, 0);
        let first = digest(&bytes);
        let (a, b) = bytes.split_at_mut(4096);
        a.swap_with_slice(b);
        assert_ne!(digest(&bytes), first);
    }
}
