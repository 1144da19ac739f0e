//! On which line of a YAML text a key stands, for complaints.
//!
//! A light scan of block style (keys by indentation, `- ` items), not a parser: what is
//! written in flow style (`{a: 1}`) is found at the line of the key it belongs to.

use super::complaint::Complaints;
use super::entry::join;

/// The keys of a YAML text and their lines.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// Path and line, in order of the text.
    keys: Vec<(String, usize)>,
}

/// A key or item whose content may follow on deeper lines.
struct Open {
    column: usize,
    is_item: bool,
    path: String,
    items: usize,
}

impl Lines {
    /// Scans a text.
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        let mut open: Vec<Open> = Vec::new();
        let mut top_items = 0;
        for (index, line) in text.lines().enumerate() {
            let mut rest = line.trim_start_matches(' ');
            let mut column = line.len() - rest.len();
            while let Some(item) =
                rest.strip_prefix('-').filter(|item| item.is_empty() || item.starts_with(' '))
            {
                // An item may stand in the column of the key that its list belongs to.
                open.retain(|outer| outer.column < column || (outer.column == column && !outer.is_item));
                let (parent, count) = match open.last_mut() {
                    Some(outer) => (outer.path.clone(), &mut outer.items),
                    None => (String::new(), &mut top_items),
                };
                let path = format!("{parent}[{count}]");
                *count += 1;
                lines.keys.push((path.clone(), index + 1));
                open.push(Open { column, is_item: true, path, items: 0 });
                rest = item.trim_start_matches(' ');
                column = line.len() - rest.len();
            }
            if let Some(key) = key_of(rest) {
                open.retain(|outer| outer.column < column);
                let path = join(open.last().map_or("", |outer| &outer.path), key);
                lines.keys.push((path.clone(), index + 1));
                open.push(Open { column, is_item: false, path, items: 0 });
            }
        }
        lines
    }

    /// The line, counted from 1, of a key such as `scaling.min`, or else of the nearest
    /// key that it belongs to.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let belongs = |path: &str| {
            key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let candidates = self.keys.iter().rev().filter(|(path, _)| belongs(path));
        candidates.max_by_key(|(path, _)| path.len()).map(|(_, line)| *line)
    }

    /// All complaints, one line each, as `flurry.yaml:12: scaling.min: ...`.
    pub fn report(&self, file: &str, complaints: &Complaints) -> String {
        let report = complaints.as_slice().iter().map(|complaint| match self.line_of(&complaint.key) {
            Some(line) => format!("{file}:{line}: {complaint}"),
            None => format!("{file}: {complaint}"),
        });
        report.collect::<Vec<_>>().join("\n")
    }
}

/// The key that a line begins with, without its quotes.
fn key_of(text: &str) -> Option<&str> {
    if text.starts_with(['#', '{', '[', '|', '>', '&', '*', '!', '%']) {
        return None;
    }
    let end = text.find(": ").or_else(|| text.trim_end().strip_suffix(':').map(str::len))?;
    let key = text[..end].trim();
    let unquoted = key.strip_prefix(['"', '\'']).and_then(|key| key.strip_suffix(['"', '\'']));
    Some(unquoted.unwrap_or(key)).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    const TEXT: &str = "\
# flurry.yaml
tier: web
scaling:
  min: 0
  scale_down: {stabilisation: x}
backends:
- address: nowhere
  weight: 3
-
  address: other   # a comment: with a colon
listeners:
  - bind: 1
  - - a
    - b
\"quoted key\": 5
last:
";

    #[test]
    fn keys_are_found_on_their_lines() {
        let lines = Lines::of(TEXT);
        for (key, line) in [
            ("tier", 2),
            ("scaling", 3),
            ("scaling.min", 4),
            ("backends[0].address", 7),
            ("backends[0].weight", 8),
            ("backends[1]", 9),
            ("backends[1].address", 10),
            ("listeners[0].bind", 12),
            ("listeners[1][0]", 13),
            ("listeners[1][1]", 14),
            ("quoted key", 15),
            ("last", 16),
        ] {
            assert_eq!(lines.line_of(key), Some(line), "{key}");
        }
    }

    #[test]
    fn a_key_in_flow_style_or_missing_is_found_where_it_belongs() {
        let lines = Lines::of(TEXT);
        assert_eq!(lines.line_of("scaling.scale_down.stabilisation"), Some(5));
        assert_eq!(lines.line_of("scaling.max"), Some(3));
        assert_eq!(lines.line_of("scalings"), None);
        assert_eq!(lines.line_of("nothing"), None);
    }

    #[test]
    fn a_report_names_file_and_line() {
        let refused = yaml::read("a:\n  b: x\n", |root| {
            root.section("a", |section| section.u64("b", "give 4").optional());
            root.string("name", "name it").required()
        });
        let report = Lines::of("a:\n  b: x\n").report("f.yaml", &refused.expect_err("two complaints"));
        assert_eq!(
            report,
            "f.yaml:2: a.b: must be a whole number of 0 or more, got `x` (give 4)\n\
             f.yaml: name: is missing (name it)"
        );
    }
}
