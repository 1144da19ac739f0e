//! `balance`: how the backend of a request is chosen.

use http::HeaderName;
use scaler::yaml::Section;

use super::routes::header_name;
use crate::pool::{Balance, HashBy};

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>) -> Balance {
    const BY: &str = "give client, path, header or cookie, with the name of the field as `header`, of the cookie as `cookie`";
    let words = [
        ("two_choices", Balance::TwoChoices),
        ("round_robin", Balance::RoundRobin),
        ("least_requests", Balance::LeastRequests),
        ("peak_ewma", Balance::PeakEwma),
        ("hash", Balance::Hash(HashBy::Client)),
    ];
    let policy =
        section.choice("policy", &words, "give a policy, e.g. least_requests").or(Balance::default());
    let keys = ["client", "path", "header", "cookie"].map(|word| (word, word));
    let by = section.choice("by", &keys, BY).optional();
    let header = section
        .string("header", "give the name of a header field, e.g. x-user")
        .try_map(|text| header_name(&text))
        .optional();
    let cookie = section
        .string("cookie", "give the name of a cookie, e.g. session")
        .check(|name| is_cookie_name(name))
        .optional();
    if by.is_some() && !matches!(policy, Balance::Hash(_)) {
        section.complain("by", "is given without `policy: hash`", "remove it, or give `policy: hash`");
    }
    if (by == Some("header")) != header.is_some() {
        section.complain("header", "and `by: header` need each other", BY);
    }
    if (by == Some("cookie")) != cookie.is_some() {
        section.complain("cookie", "and `by: cookie` need each other", BY);
    }
    match (policy, by, header, cookie) {
        (Balance::Hash(_), Some("path"), ..) => Balance::Hash(HashBy::Path),
        (Balance::Hash(_), Some("header"), Some(name), _) => Balance::Hash(HashBy::Header(name)),
        (Balance::Hash(_), Some("cookie"), _, Some(name)) => Balance::Hash(HashBy::Cookie(name.into())),
        (policy, ..) => policy,
    }
}

/// A cookie's name is a token, as that of a header field is (RFC 6265 4.1.1).
pub(super) fn is_cookie_name(name: &str) -> Result<(), String> {
    let fine = HeaderName::from_bytes(name.as_bytes()).is_ok();
    fine.then_some(()).ok_or_else(|| format!("must be the name of a cookie, got `{name}`"))
}
