//! Clones whose memory can no longer be completed: out of the pool with a reason, and replaced.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use flurry_tests::load::Load;
use flurry_tests::programs;
use flurry_tests::tier::TierSite;
use flurry_tests::wait::{LONG, until_true};

const CLIENTS: u32 = 2;
const KILL_LIMIT: Duration = Duration::from_secs(5);
const MEMTAP: &str = "flurry-memtap";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_that_nobody_gives_pages_any_more_leave_the_pool_and_are_replaced_once_that_works() {
    let mut site = TierSite::new("starved");
    (site.config.min, site.config.max) = (3, 4);
    let programs = site.files().join("programs");
    std::fs::create_dir(&programs).unwrap();
    for name in ["flurry-memserver", MEMTAP, "libsnowflock_shim.so"] {
        link(&programs, name);
    }
    let variable = format!("FLURRY_LIBEXEC={}", programs.display());
    let mut flurry = site.up_through(&["env", &variable]);
    flurry.has_ready(3).await;
    let load = Load::start(flurry.listen, CLIENTS);
    load.goes_on(30).await;

    std::fs::remove_file(programs.join(MEMTAP)).unwrap();
    let killed = site.site().processes_of(MEMTAP).iter().filter(|process| process.kill(KILL_LIMIT)).count();
    assert!(killed > 0, "no memtap ran");
    let counted =
        async || flurry.admin_page("/metrics").await.contains("\nflurry_engine_clones_starved_total 2\n");
    until_true("both clones are given up", LONG, counted).await;
    let left = flurry.shows("they have left the pool", |status| {
        status
            .backends
            .iter()
            .filter(|backend| backend.id != "parent")
            .all(|backend| backend.state != "ready")
    });
    left.await;
    assert!(flurry.said().contains("its pages stop coming"), "{}", flurry.said());
    // The parent goes on alone.
    load.goes_on(30).await;

    link(&programs, MEMTAP);
    flurry.has_ready(3).await;
    load.goes_on(30).await;
    load.stop().await;
    flurry.stop().await;
    site.site().assert_nothing_left();
}

fn link(folder: &Path, name: &str) {
    symlink(programs::folder().join(name), folder.join(name)).unwrap();
}
