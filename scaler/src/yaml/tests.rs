//! The reader as its callers use it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// The complaints about `text`, one line each; panics if it is read without any.
fn complaints<T>(text: &str, reader: impl FnOnce(&mut Section<'_>) -> T) -> Vec<String> {
    match read(text, |root| Some(reader(root))) {
        Ok(_) => panic!("nothing to complain about in {text:?}"),
        Err(complaints) => complaints.into_iter().map(|complaint| complaint.to_string()).collect(),
    }
}

fn accepted<T>(text: &str, reader: impl FnOnce(&mut Section<'_>) -> T) -> T {
    read(text, |root| Some(reader(root))).unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn every_kind_of_value_is_read() {
    let text = "{n: 7, f: 1.5, whole: 2, b: true, s: hello, d: 500ms, size: 64KiB, raw: 10, \
                q: 25%, a: '[::1]:80', p: /etc/hosts, word: slow}";
    accepted(text, |root| {
        assert_eq!(root.u32("n", "").optional(), Some(7));
        assert_eq!(root.u64("n", "").optional(), Some(7));
        assert_eq!(root.f64("f", "").optional(), Some(1.5));
        assert_eq!(root.f64("whole", "").optional(), Some(2.0));
        assert_eq!(root.bool("b", "").optional(), Some(true));
        assert_eq!(root.string("s", "").not_empty().optional().as_deref(), Some("hello"));
        assert_eq!(root.duration("d", "").optional(), Some(Duration::from_millis(500)));
        assert_eq!(root.bytes("size", "").optional(), Some(65_536));
        assert_eq!(root.share("q", "").optional(), Some(0.25));
        assert_eq!(root.share("f", "").optional(), Some(1.5));
        assert_eq!(root.bytes("raw", "").optional(), Some(10));
        assert_eq!(
            root.socket_addr("a", "").optional(),
            Some(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 80)))
        );
        assert_eq!(root.path_buf("p", "").optional(), Some(PathBuf::from("/etc/hosts")));
        assert_eq!(root.choice("word", &[("fast", 1), ("slow", 2)], "").optional(), Some(2));
    });
}

#[test]
fn an_absent_key_gives_its_default() {
    accepted("", |root| {
        assert_eq!(root.u64("n", "").at_least(5).or(9), 9);
        assert_eq!(root.string("s", "").optional(), None);
        assert!(root.section("deep", |deep| deep.bool("b", "").or(true)));
        assert!(root.optional_section("none", |_| ()).is_none());
        assert!(!root.has("n"));
    });
}

#[test]
fn every_wrong_kind_is_named_with_what_was_given() {
    let text = "{n: -3, f: many, nan: .nan, b: 1, s: 8080, d: 10, size: [], a: localhost:80, p: '', \
                word: medium, list: 4, pairs: [1], deep: 5, tag: !x 1, null: ~, big: 4294967296, \
                half: true}";
    let found = complaints(text, |root| {
        root.u64("n", "r").optional();
        root.f64("f", "r").optional();
        root.f64("nan", "r").optional();
        root.bool("b", "r").optional();
        root.string("s", "r").optional();
        root.duration("d", "r").optional();
        root.bytes("size", "r").optional();
        root.socket_addr("a", "r").optional();
        root.path_buf("p", "r").optional();
        root.choice("word", &[("fast", 1), ("slow", 2)], "r").optional();
        root.list("list", "r").optional();
        root.pairs("pairs", "r").optional();
        root.section("deep", |deep| deep.u64("n", "r").required());
        root.u64("tag", "r").optional();
        root.entry("null").u64("r").optional();
        root.u32("big", "r").optional();
        root.share("half", "r").optional();
    });
    let expected = [
        "n: must be a whole number of 0 or more, got -3 (r)",
        "f: must be a number, got `many` (r)",
        "nan: must be a number, got .nan (r)",
        "b: must be true or false, got 1 (r)",
        "s: must be text, got 8080 (r)",
        "d: must be a duration with a unit, got 10 (r)",
        "size: must be a size, got a list of 0 (r)",
        "a: must be an IP address with a port, got `localhost:80` (r)",
        "p: must not be empty (r)",
        "word: must be one of fast, slow, got `medium` (r)",
        "list: must be a list, got 4 (r)",
        "pairs: must be a mapping of keys to values, got a list of 1 (r)",
        "deep: must be a section of keys and values, got 5 (put `key: value` lines under it)",
        "tag: must be a whole number of 0 or more, got a value with the tag !x (r)",
        "big: must be at most 4294967295, got 4294967296 (r)",
        "half: must be a share, got true (r)",
    ];
    // A key written `null:` is no text, hence unknown rather than empty.
    assert_eq!(found[..16], expected);
    assert!(found[16].starts_with("nothing: is not a known key"), "{}", found[16]);
}

#[test]
fn a_key_without_a_value_is_refused_unless_it_is_a_section() {
    let found = complaints("n:\ndeep:\n", |root| {
        root.u64("n", "give 4").or(1);
        root.section("deep", |deep| deep.u64("x", "").or(1));
    });
    assert_eq!(found, ["n: must be a whole number of 0 or more, got nothing (give 4)"]);
}

#[test]
fn limits_are_checked_at_their_edges() {
    fn number(text: &str, limit: impl FnOnce(Field<'_, u64>) -> Field<'_, u64>) -> Result<u64, Complaints> {
        read(&format!("n: {text}"), |root| Some(limit(root.u64("n", "r")).or(0)))
    }
    assert!(number("5", |n| n.at_least(5).at_most(5)).is_ok());
    assert!(number("4", |n| n.at_least(5)).is_err());
    assert!(number("6", |n| n.at_most(5)).is_err());
    assert!(number("5", |n| n.above(5)).is_err());
    assert!(number("5", |n| n.below(5)).is_err());
    assert!(number("5", |n| n.above(4).below(6)).is_ok());
}

#[test]
fn a_value_outside_its_limits_is_complained_about_once() {
    let found = complaints("{f: -3, d: 5ms}", |root| {
        root.f64("f", "give 4").above(0.0).at_least(1.0).or(4.0);
        root.duration("d", "give 1s").at_least(Duration::from_secs(1)).or(Duration::ZERO);
    });
    assert_eq!(found, ["f: must be above 0, got -3 (give 4)", "d: must be at least 1s, got 5ms (give 1s)"]);
}

#[test]
fn a_missing_required_key_is_named_with_its_remedy() {
    let found = complaints("deep: {}", |root| {
        root.section("deep", |deep| deep.string("name", "name the tier, e.g. web").required());
    });
    assert_eq!(found, ["deep.name: is missing (name the tier, e.g. web)"]);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_one_or_the_list() {
    let found = complaints("{lisen: 1, colour: red, 3: x, deep: {mni: 2}}", |root| {
        root.u64("listen", "").or(0);
        root.section("deep", |deep| deep.u64("min", "").or(0));
    });
    assert_eq!(
        found,
        [
            "deep.mni: is not a known key (did you mean `min`?)",
            "lisen: is not a known key (did you mean `listen`?)",
            "colour: is not a known key (known keys here: deep, listen)",
            "3: is not a known key (keys are text)",
        ]
    );
}

#[test]
fn items_of_a_list_have_their_index_in_the_path() {
    let text = "backends: ['127.0.0.1:80', {address: nowhere}, 7]";
    let found = complaints(text, |root| {
        for item in root.list("backends", "list the backends").required().into_iter().flatten() {
            if item.is_section() {
                item.section(|s| s.socket_addr("address", "give ip:port").required());
            } else {
                item.socket_addr("give ip:port").required();
            }
        }
    });
    assert_eq!(
        found,
        [
            "backends[1].address: must be an IP address with a port, got `nowhere` (give ip:port)",
            "backends[2]: must be text, got 7 (give ip:port)",
        ]
    );
}

#[test]
fn an_empty_list_can_be_refused() {
    let found = complaints("l: []", |root| root.list("l", "add one").not_empty().optional().map(|_| ()));
    assert_eq!(found, ["l: must not be empty (add one)"]);
}

#[test]
fn pairs_have_keys_of_the_users_choice() {
    accepted("headers: {X-A: one, X-B: two}", |root| {
        let pairs = root.pairs("headers", "").or(vec![]);
        let read: Vec<_> = pairs.into_iter().map(|(k, v)| (k, v.string("").or(String::new()))).collect();
        assert_eq!(read, [("X-A".to_owned(), "one".to_owned()), ("X-B".to_owned(), "two".to_owned())]);
    });
    let found = complaints("headers: {7: one}", |root| root.pairs("headers", "r").optional().map(|_| ()));
    assert_eq!(found, ["headers: must have text for keys, got 7 (r)"]);
}

#[test]
fn a_complaint_over_several_keys_carries_the_path() {
    let found = complaints("scaling: {}", |root| {
        root.section("scaling", |s| s.complain("min", "is above max", "swap them"));
    });
    assert_eq!(found, ["scaling.min: is above max (swap them)"]);
}

#[test]
fn a_syntax_error_is_told_with_its_line() {
    let found = complaints("a: 1\nb: [\n", |_| ());
    assert!(found[0].starts_with("line 3, column 1: is not valid YAML"), "{}", found[0]);
    let found = complaints("a: 1\na: 2\n", |_| ());
    assert!(found[0].contains("duplicate entry"), "{}", found[0]);
}

#[test]
fn a_document_that_is_no_mapping_is_refused() {
    let found = complaints("- 1\n", |root| root.u64("n", "").required());
    assert_eq!(
        found,
        [
            "configuration: must be a section of keys and values, got a list of 1 (put `key: value` lines under it)"
        ]
    );
}

#[test]
fn a_reader_that_gives_up_without_a_word_is_an_error_still() {
    let read: Result<(), _> = read("", |_| None);
    assert!(read.is_err());
}

#[test]
fn merge_keys_are_applied() {
    accepted("base: &b {x: 3}\nuse: {<<: *b}\n", |root| {
        root.section("base", |s| s.u64("x", "").or(0));
        assert_eq!(root.section("use", |s| s.u64("x", "").or(0)), 3);
    });
}

#[test]
fn long_text_is_shortened_in_a_complaint() {
    let found = complaints(&format!("n: {}", "x".repeat(500)), |root| root.u64("n", "r").optional());
    assert!(found[0].len() < 120, "{}", found[0]);
}
