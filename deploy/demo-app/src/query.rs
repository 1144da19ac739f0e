//! A request's target: path and query, `?mib=16&seed=7`. Numbers only, so nothing needs decoding.

/// A parsed target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(target: &'a str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { path, query }
    }

    /// The number under `key`, within bounds; or in words what is wrong.
    pub(crate) fn number(&self, key: &str, least: u64, most: u64) -> Result<u64, String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(k, _)| *k == key).map(|(_, v)| v).next_back();
        match value.map(str::parse) {
            Some(Ok(number)) if (least..=most).contains(&number) => Ok(number),
            Some(_) => Err(format!("{key}: must be a number {least}..={most}")),
            None => Err(format!("{key}: missing; ?{key}=N is needed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_within_their_bounds() {
        let target = Target::parse("/memory/fill?mib=16&seed=18446744073709551615");
        assert_eq!(target.path, "/memory/fill");
        assert_eq!(target.number("mib", 1, 16), Ok(16));
        assert_eq!(target.number("seed", 0, u64::MAX), Ok(u64::MAX));
        assert!(target.number("mib", 1, 15).is_err_and(|why| why.contains("1..=15")));
        assert!(target.number("other", 0, 1).is_err_and(|why| why.contains("missing")));
    }
}
