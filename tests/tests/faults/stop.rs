//! How `flurry` ends: killed, and its successor finds its way; asked, and no request is lost.

use flurry_tests::client;
use flurry_tests::load::Load;
use flurry_tests::tier::TierSite;
use flurry_tests::wait::LONG;
use nix::sys::signal::Signal;

const CLIENTS: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_flurry_is_cleaned_up_after_by_the_next_which_stops_without_losing_a_request() {
    let mut site = TierSite::new("stop");
    (site.config.min, site.config.max) = (2, 2);
    let mut flurry = site.serving(2).await;

    // Its state folder, and its name, are its own as long as it runs.
    let mut rival = TierSite::new("rival");
    rival.config.state_dir.clone_from(&site.config.state_dir);
    let folder = site.config.state_dir.display().to_string();
    rival.up().ends().await.assert_complaint(&[&folder, "in use by another running flurry", "state_dir"]);
    let mut namesake = TierSite::new("namesake");
    namesake.config.name.clone_from(&site.config.name);
    let ended = namesake.refuses().await;
    ended.assert_complaint(&[&site.config.name, "another running flurry has the name"]);
    flurry.has_ready(2).await;
    let answer = client::get(flurry.listen, "/item/1", LONG).await.unwrap();
    assert_eq!(answer.status, 200, "the one that was there first is not harmed");

    // Killed, it leaves its VMs; the next one with its name removes them, and serves.
    let before = site.site().processes();
    assert!(before.len() >= 4, "two VMs, memserver, memtap: {before:?}");
    flurry.signal(Signal::SIGKILL);
    assert_eq!(flurry.ends().await.status.code(), None);
    let mut flurry = site.serving(2).await;
    let left: Vec<_> = before.into_iter().filter(|process| process.is_alive()).collect();
    assert!(left.is_empty(), "of the killed one: {left:?}");

    // Asked to stop under load, it answers all that was asked, and takes all of its own away.
    let load = Load::start(flurry.listen, CLIENTS);
    load.goes_on(30).await;
    flurry.has_ready(2).await;
    load.tier_may_close();
    flurry.signal(Signal::SIGTERM);
    let outcome = load.turned_away().await;
    assert_eq!(outcome.failures, [] as [String; 0], "of {} requests", outcome.total());
    flurry.ends().await.assert_code(0);
    site.site().assert_nothing_left();
}
