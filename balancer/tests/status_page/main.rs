//! The status page in a real browser, fed by a front door under load.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod browser;
#[path = "../support/mod.rs"]
mod support;

use balancer::admin::status::{
    CloneStatus, DecisionStatus, EngineStatus, ForkStatus, ScalerStatus, SignalStatus,
};
use balancer::front::Front;
use browser::Browser;
use support::*;

/// Markup that would do something if it were taken for markup.
const HOSTILE: &str = "<img src=x onerror=\"window.taken=1\"><script>window.taken=1</script>\u{202e}\"'&amp;";

/// Nothing of the page is wider than the window.
const FITS: &str = "document.documentElement.scrollWidth <= innerWidth && [...document.querySelectorAll('body *')]
    .filter(it => !it.closest('#chart, thead') && it.getBoundingClientRect().right > innerWidth + 1).length === 0";

fn url(front: &Front) -> String {
    format!("http://{}/", front.admin())
}

/// What a tier of VMs would write, with names that come from elsewhere.
fn write_as_a_tier(front: &Front, name: &str) {
    let board = front.handles().board;
    let text = name.to_owned();
    let at = board.uptime().as_secs_f64();
    let scaler = ScalerStatus {
        mode: "active".into(),
        min: 1,
        max: 16,
        signals: vec![SignalStatus { signal: text.clone(), target: 40.0, ..Default::default() }],
        would_change: vec![text.clone()],
        ..Default::default()
    };
    board.set_scaler(scaler);
    let reason = format!("{text}: 312 requests/s want 4 backends");
    let action = "grow".to_owned();
    board.note_decision(DecisionStatus { at_seconds: at, action, from: 2, to: 4, reason });
    let fork = |id, first| ForkStatus {
        id,
        began_at_seconds: Some(at),
        seeded_ms: 40.0,
        running_ms: 51.0,
        joined_ms: 130.0,
        first_response_ms: first,
    };
    let clone = CloneStatus {
        id: 1,
        ip: text.clone(),
        state: text.clone(),
        pages_present: 1460,
        pages_total: 65536,
        pages_private: Some(300),
        ..Default::default()
    };
    let engine = EngineStatus {
        accelerator: text,
        clones: vec![clone],
        fork_to_first_response_all_ms: vec![212.0],
        forks: vec![fork(1, Some(212.0)), fork(2, None)],
        ..Default::default()
    };
    board.set_engine(move || engine.clone());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_tier_under_load_and_goes_on_by_itself() {
    let backends = [Backend::text("hello").await, Backend::text("hello").await];
    let front = ready_front(&[backends[0].address, backends[1].address], "name: shop").await;
    let load = Load::start(front.listen()[0], 2);
    let mut browser = Browser::start().await;
    browser.resize(1280, 900, false).await;
    browser.open(&url(&front)).await;
    browser.wait_for("document.title === 'shop · Flurry'").await;
    browser.wait_for("document.getElementById('state').textContent === 'serving'").await;
    let total = "document.querySelector('.tile .more').textContent";
    let first = browser.evaluate(total).await.as_str().unwrap().to_owned();
    browser
        .wait_for(&format!(
            "{total} !== {first:?} && parseFloat(document.querySelector('.value').textContent) > 0"
        ))
        .await;
    let shown = browser.evaluate("document.getElementById('backends').innerText").await.to_string();
    for backend in &backends {
        assert!(shown.contains(&backend.address.to_string()), "{shown}");
    }
    browser.wait_for("document.querySelector('#chart .load').getAttribute('d').split('L').length > 4").await;
    browser.evaluate("document.querySelector('[data-s=\"60\"]').click()").await;
    browser
        .wait_for("document.querySelector('#chart').getAttribute('aria-label').startsWith('Last 1 min')")
        .await;
    for scheme in ["dark", "light"] {
        browser.prefer(scheme).await;
        assert!(browser.picture().await.starts_with(b"\x89PNG"), "{scheme}");
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_from_elsewhere_are_text_and_fit_a_phone() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let hostile = balancer::pool::BackendId::from(format!("{HOSTILE}{}", "long".repeat(40)));
    front
        .handles()
        .pool
        .insert(balancer::pool::BackendSpec { id: hostile, ..spec(backend.address) })
        .unwrap();
    write_as_a_tier(&front, &format!("{HOSTILE}{}", "name".repeat(40)));
    let mut browser = Browser::start().await;
    browser.resize(390, 844, true).await;
    browser.open(&url(&front)).await;
    browser.wait_for("document.querySelectorAll('#forks .fork').length === 2").await;
    let seen = browser.evaluate("document.body.innerText").await;
    for place in ["backends", "decisions", "why", "signals", "forks", "accelerator"] {
        let text = browser.evaluate(&format!("document.getElementById('{place}').textContent")).await;
        assert!(text.as_str().unwrap().contains("<img src=x onerror=\"window.taken=1\">"), "{place}: {seen}");
    }
    assert_eq!(
        browser.evaluate("document.images.length + document.scripts.length").await,
        1,
        "only our script"
    );
    assert_eq!(browser.evaluate("window.taken === undefined").await, true);
    for (width, height) in [(390, 844), (320, 568), (844, 390), (768, 1024), (1280, 900)] {
        browser.resize(width, height, width < 800).await;
        browser.wait_for(FITS).await;
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_its_flurry_says_so_and_keeps_what_it_had() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "name: gone").await;
    let mut browser = Browser::start().await;
    browser.resize(390, 844, true).await;
    browser.open(&url(&front)).await;
    browser.wait_for("document.getElementById('live').textContent === 'live'").await;
    front.close().await;
    browser.wait_for("!document.getElementById('notice').hidden").await;
    let notice = browser.evaluate("document.getElementById('notice').textContent").await;
    assert!(notice.as_str().unwrap().contains("does not answer"), "{notice}");
    assert_eq!(browser.evaluate("document.getElementById('name').textContent").await, "gone");
    assert_eq!(browser.evaluate(FITS).await, true);
}
