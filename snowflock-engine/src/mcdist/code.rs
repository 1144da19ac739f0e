//! Repairs: each stands for any one page of its group.
//!
//! When 512 receivers each miss another page of a group, one repair helps them
//! all. The pages of a group are the data of a Reed-Solomon code; who has as
//! many repairs as it misses pages computes those.

use reed_solomon_simd::{Error, ReedSolomonDecoder, ReedSolomonEncoder};

use super::geometry::{GROUP_PAGES, Group, Lane};

/// Different repairs that a group can have.
pub const REPAIRS: usize = GROUP_PAGES as usize;
const PAGES: usize = GROUP_PAGES as usize;
/// Codes whose repairs are kept: 4 MiB with pages of 4 KiB.
const KEPT: usize = 8;

/// All repairs of the groups that were asked for last.
#[derive(Default)]
pub struct Encoder {
    codec: Option<ReedSolomonEncoder>,
    kept: Vec<((Group, Lane), Vec<u8>)>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("groups", &self.kept.len()).finish_non_exhaustive()
    }
}

impl Encoder {
    /// One repair of a group. `row` gives the shares of the group's pages in one row, zeros for those that
    /// are not covered; it is called only if the group is not among the last ones.
    ///
    /// # Errors
    /// Whatever `row` says; the code itself cannot fail on a row of the right length.
    pub fn repair<E>(
        &mut self,
        (group, lane): (Group, Lane),
        index: u8,
        share: usize,
        row: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<&[u8], E> {
        let at = match self.kept.iter().position(|(kept, _)| *kept == (group, lane)) {
            Some(at) => at,
            None => {
                let repairs = self.encode(share, &row()?).unwrap_or_default();
                if self.kept.len() == KEPT {
                    self.kept.remove(0);
                }
                self.kept.push(((group, lane), repairs));
                self.kept.len() - 1
            }
        };
        let start = usize::from(index) * share;
        Ok(self.kept[at].1.get(start..start + share).unwrap_or_default())
    }

    fn encode(&mut self, share: usize, row: &[u8]) -> Result<Vec<u8>, Error> {
        let codec = match &mut self.codec {
            Some(codec) => codec,
            none => none.insert(ReedSolomonEncoder::new(PAGES, REPAIRS, share)?),
        };
        for page in row.chunks_exact(share) {
            codec.add_original_shard(page)?;
        }
        Ok(codec.encode()?.recovery_iter().flatten().copied().collect())
    }
}

/// Computes missing pages, or thirds of them.
#[derive(Default)]
pub struct Decoder(Option<ReedSolomonDecoder>);

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    /// Calls `restored` with each covered page that is not known. `known` appends a known page's
    /// share, which is `share` bytes long; `repairs` are indices with shares.
    ///
    /// # Errors
    /// There are too few repairs, or `known` fails.
    pub fn restore<'r>(
        &mut self,
        share: usize,
        covers: u128,
        known_mask: u128,
        mut known: impl FnMut(usize, &mut Vec<u8>) -> std::io::Result<()>,
        repairs: impl Iterator<Item = (u8, &'r [u8])>,
        mut restored: impl FnMut(usize, &[u8]),
    ) -> std::io::Result<()> {
        let codec = self.codec(share).map_err(std::io::Error::other)?;
        let mut page = Vec::with_capacity(share);
        for index in 0..PAGES {
            let is_covered = covers >> index & 1 == 1;
            if is_covered && known_mask >> index & 1 == 0 {
                continue;
            }
            page.clear();
            if is_covered {
                known(index, &mut page)?;
            }
            page.resize(share, 0);
            codec.add_original_shard(index, &page).map_err(std::io::Error::other)?;
        }
        for (index, share) in repairs {
            codec.add_recovery_shard(index.into(), share).map_err(std::io::Error::other)?;
        }
        let result = codec.decode().map_err(std::io::Error::other)?;
        result.restored_original_iter().for_each(|(index, share)| restored(index, share));
        Ok(())
    }

    fn codec(&mut self, share: usize) -> Result<&mut ReedSolomonDecoder, Error> {
        match &mut self.0 {
            Some(codec) => {
                codec.reset(PAGES, REPAIRS, share)?;
                Ok(codec)
            }
            none => Ok(none.insert(ReedSolomonDecoder::new(PAGES, REPAIRS, share)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 66;

    fn row() -> Vec<u8> {
        (0..PAGES * BYTES).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn repair(index: u8) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.repair::<()>((Group(1), Lane::Whole), index, BYTES, || Ok(row())).unwrap().to_vec()
    }

    /// The missing pages that three repairs bring back.
    fn restored(missing: u128, repairs: &[u8]) -> std::io::Result<Vec<usize>> {
        let (row, mut found) = (row(), Vec::new());
        let repairs: Vec<_> = repairs.iter().map(|index| (*index, repair(*index))).collect();
        Decoder::default().restore(
            BYTES,
            u128::MAX,
            !missing,
            |index, out| {
                out.extend_from_slice(&row[index * BYTES..][..BYTES]);
                Ok(())
            },
            repairs.iter().map(|(index, share)| (*index, &share[..])),
            |index, share| {
                assert_eq!(share, &row[index * BYTES..][..BYTES]);
                found.push(index);
            },
        )?;
        found.sort_unstable();
        Ok(found)
    }

    #[test]
    fn any_repairs_bring_back_as_many_pages() {
        let missing = 1 | 1 << 77 | 1 << 127;
        for repairs in [[0, 1, 2], [127, 5, 60]] {
            assert_eq!(restored(missing, &repairs).unwrap(), [0, 77, 127]);
        }
        assert!(restored(missing, &[3, 4]).is_err(), "one too few");
    }

    #[test]
    fn repairs_are_computed_once_for_the_groups_asked_for_last() {
        let (mut encoder, mut computed) = (Encoder::default(), 0);
        for group in [1, 1, 2, 3, 4, 5, 6, 7, 8, 1, 9, 1] {
            let pages = || {
                computed += 1;
                Ok::<_, ()>(row())
            };
            encoder.repair((Group(group), Lane::Whole), 0, BYTES, pages).unwrap();
        }
        assert_eq!(computed, 10, "group 1 was forgotten once");
        assert_eq!(encoder.repair((Group(11), Lane::Part(0)), 0, BYTES, || Err("gone")), Err("gone"));
    }
}
