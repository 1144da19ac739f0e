//! Finds the known key that a user most likely meant.

/// The known key nearest to `given`, if one is near enough to be meant.
pub(super) fn nearest<'k>(given: &str, known: &'k [String]) -> Option<&'k str> {
    let allowed = (given.chars().count() / 3).max(2);
    known
        .iter()
        .map(|key| (rank(given, key), key.as_str()))
        .filter(|(rank, _)| *rank <= allowed)
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, key)| key)
}

/// Edit distance, but a key that begins with the other one is always near:
/// `max` is meant by `maximum`, `scale_down_window` by `scale_down`.
fn rank(given: &str, key: &str) -> usize {
    let (given, key) = (normal(given), normal(key));
    let prefix = given.len().min(key.len()) >= 3 && (given.starts_with(&key) || key.starts_with(&given));
    if prefix { 1 } else { distance(&given, &key) }
}

fn normal(key: &str) -> String {
    key.to_ascii_lowercase().replace('-', "_")
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        ["target_concurrency", "min", "max", "stable_window"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_typing_error_finds_its_key() {
        assert_eq!(nearest("target_concurency", &known()), Some("target_concurrency"));
        assert_eq!(nearest("Stable-Window", &known()), Some("stable_window"));
        assert_eq!(nearest("maximum", &known()), Some("max"));
    }

    #[test]
    fn a_word_that_means_nothing_finds_nothing() {
        assert_eq!(nearest("colour", &known()), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
