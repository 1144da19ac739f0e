//! Orders by hand to a real tier, under load: sizes held and clamped, the way back to the
//! policy, a pause, and a journal that plays to the same decisions.

use std::process::Command;

use flurry_tests::load::Load;
use flurry_tests::programs;
use flurry_tests::tier::{Flurry, TierSite};

/// Runs `flurry` with these arguments against the tier, and returns what it says.
async fn flurry(tier: &Flurry, arguments: &[&str]) -> String {
    let mut program = Command::new(programs::flurry());
    program.args(arguments).args(["--admin", &tier.admin.to_string()]);
    let ended = tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{arguments:?}: {said}");
    said.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_obeys_orders_under_load_loses_no_request_and_its_journal_plays_again() {
    let mut site = TierSite::new("orders");
    site.config.max = 3;
    let journal = site.files().join("journal.jsonl");
    site.config.journal = Some(journal.clone());
    let mut tier = site.serving(1).await;

    assert!(flurry(&tier, &["scale", "9"]).await.contains("max is 3, and 3 are held"));
    tier.has_ready(3).await;
    let frames = flurry(&tier, &["top", "--count", "2", "--every", "200ms"]).await;
    assert_eq!(frames.matches("requests/s  ").count(), 2, "{frames}");
    assert!(frames.contains("3 were asked for by hand") || frames.contains("9 were asked for"), "{frames}");

    flurry(&tier, &["scale", "--auto"]).await;
    tier.shows("only the parent is left", |status| status.scaling.ready == 1).await;
    flurry(&tier, &["scale", "2", "--for", "20s"]).await;
    tier.has_ready(2).await;
    tier.shows("the time is over", |status| status.scaling.ready == 1).await;

    // Paused, the tier stays as it is whatever comes; active again, it grows.
    flurry(&tier, &["scale", "--mode", "paused"]).await;
    tier.shows("it is paused", |status| status.scaling.scaler.mode == "paused").await;
    let load = Load::start(tier.listen, 12);
    load.goes_on(100).await;
    let status = tier.status().await;
    assert_eq!((status.scaling.ready, status.scaling.starting), (1, 0));
    flurry(&tier, &["scale", "--mode", "active"]).await;
    tier.shows("it grows", |status| status.scaling.ready >= 2).await;
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty() && outcome.total() > 100, "{outcome:?}");
    tier.stop().await;

    let config = site.files().join("flurry.yaml");
    let mut replay = Command::new(programs::flurry());
    let ended = replay.args(["policy", "replay", "-c"]).arg(&config).arg(&journal).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.ends_with(" 0 differ\n"), "{ended:?}");
    site.site().assert_nothing_left();
}
