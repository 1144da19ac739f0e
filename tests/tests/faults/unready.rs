//! Guests that never serve: the start gives up, says what it saw, and takes everything back.

use std::fs;

use flurry_tests::guest_image;
use flurry_tests::tier::TierSite;
use nix::sys::signal::Signal;
use snowflock_engine::network::identity::CloneId;

use flurry_tests::wait::{LONG, until};

#[tokio::test]
async fn a_guest_that_never_answers_well_is_given_up_with_the_last_answer() {
    let (mut wrong_path, mut wrong_port) = (TierSite::new("path"), TierSite::new("unheard"));
    wrong_path.config.boot_deadline = "30s";
    wrong_path.config.health_path = "/nobody-made-this";
    wrong_port.config.boot_deadline = "30s";
    wrong_port.config.port = 81;
    let (path, port) = tokio::join!(wrong_path.refuses(), wrong_port.refuses());
    path.assert_complaint(&["GET /nobody-made-this", "port 80", "vm.boot_deadline", "404"]);
    port.assert_complaint(&["GET /healthz", "port 81", "vm.boot_deadline", "refused"]);
}

#[tokio::test]
async fn a_guest_that_cannot_boot_is_told_with_what_it_printed() {
    let mut site = TierSite::new("rootless");
    site.config.image = site.files().join("image");
    guest_image::imitate(&site.config.image);
    let manifest = site.config.image.join(guest_image::MANIFEST);
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("root=/dev/vda", "root=/dev/vda rdinit=/nothing")).unwrap();
    site.refuses().await.assert_complaint(&["the parent does not boot", "Kernel panic"]);
}

#[tokio::test]
async fn a_signal_during_the_boot_ends_it_at_once_and_leaves_nothing() {
    let site = TierSite::new("early");
    let flurry = site.up();
    until("the parent's VM runs", LONG, async || site.site().vm_process(CloneId::PARENT)).await;
    flurry.signal(Signal::SIGTERM);
    flurry.ends().await.assert_complaint(&["stopped by a signal before the tier was up"]);
    site.site().assert_nothing_left();
}
