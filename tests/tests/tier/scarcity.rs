//! A host that is short of memory: the wish for clones is refused with the numbers, and the tier serves on.

use std::fs;

use flurry_tests::load::Load;
use flurry_tests::tier::TierSite;

/// More than one VM serves at once, so that clones are wanted.
const CLIENTS: u32 = 12;
/// Runs the rest of the line where `/proc/meminfo` is the file named first; only there.
const WITH_MEMINFO: &str = "mount --make-private /proc && mount --bind \"$0\" /proc/meminfo && exec \"$@\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_that_memory_is_too_short_for_are_refused_and_the_parent_serves_on() {
    let mut site = TierSite::new("scarce");
    (site.config.max, site.config.shells) = (3, 0);
    let meminfo = site.files().join("meminfo");
    fs::write(&meminfo, "MemTotal: 16000000 kB\nMemFree: 41000 kB\nMemAvailable: 40960 kB\n").unwrap();
    let wrapper = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", WITH_MEMINFO];
    let meminfo = meminfo.to_str().unwrap();
    let mut flurry = site.up_through(&[&wrapper[..], &[meminfo]].concat());
    flurry.has_ready(1).await;

    let load = Load::start(flurry.listen, CLIENTS);
    flurry.says("no clones: one more clone is reckoned with 128 MiB, the host has 40 MiB available").await;
    load.goes_on(30).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failures, [] as [String; 0]);
    assert_eq!(outcome.answered.keys().collect::<Vec<_>>(), ["0"], "only the parent serves");
    let status = flurry.has_ready(1).await;
    assert!(status.engine.unwrap().clones.is_empty());
    flurry.stop().await;
    site.site().assert_nothing_left();
}
