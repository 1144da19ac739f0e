//! `sticky`: clients that stay with their backend by a cookie.

use std::sync::Arc;
use std::time::Duration;

use scaler::yaml::Section;

use super::Surroundings;
use super::balance::is_cookie_name;
use crate::pool::{SameSite, Secret, StickySettings};

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>, surroundings: &Surroundings<'_>) -> Arc<StickySettings> {
    const SECRET: &str = "give a file of 16 random bytes or more, e.g. /etc/flurry/sticky.secret";
    const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);
    let cookie = section
        .string("cookie", "give the name of the cookie, e.g. flurry")
        .check(|name| is_cookie_name(name))
        .or("flurry".to_owned());
    let secret = |path: std::path::PathBuf| {
        let path = surroundings.folder.join(path);
        let bytes =
            (surroundings.read)(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Secret::new(&bytes).ok_or_else(|| format!("{} holds less than 16 bytes", path.display()))
    };
    let secret = section.path_buf("secret_file", SECRET).try_map(secret).optional();
    let max_age = section
        .duration("max_age", "give the time that browsers keep the cookie, e.g. 8h, or leave it out")
        .at_least(Duration::from_secs(1))
        .at_most(LONGEST)
        .optional();
    let words = [("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];
    let same_site = section.choice("same_site", &words, "give lax, strict or none").or(SameSite::default());
    Arc::new(StickySettings { cookie: cookie.into(), secret, max_age, same_site })
}
