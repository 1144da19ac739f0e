//! The application without a network.

use super::*;
use std::time::{Duration, Instant};

fn app(wait_ms: u64) -> (tempfile::TempDir, App) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("file").display().to_string();
    let settings = Settings::read(|name| match name {
        "FLURRY_DEMO_WAIT_MS" => Some(wait_ms.to_string()),
        "FLURRY_DEMO_WORKERS" => Some("2".into()),
        "FLURRY_DEMO_ROUNDS" => Some("1000".into()),
        "FLURRY_DEMO_FILE" => Some(file.clone()),
        _ => None,
    });
    (dir, App::new(settings.expect("valid")))
}

fn get(app: &App, target: &str) -> Response {
    app.answer(&Request { is_get: true, target: target.into(), keep_alive: true })
}

#[test]
fn an_items_first_answer_is_a_miss_and_the_next_a_hit_of_the_same_digest() {
    let (_dir, app) = app(0);
    let (first, second) = (get(&app, "/item/5"), get(&app, "/item/5"));
    assert_eq!((first.cache, second.cache), (Some(false), Some(true)));
    assert_eq!(first.body.replace("\"cached\":false", "\"cached\":true"), second.body);
}

#[test]
fn capacity_is_workers_divided_by_wait() {
    let (_dir, app) = app(20);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| get(&app, "/item/1"));
        }
    });
    assert!(began.elapsed() >= Duration::from_millis(80), "8 requests by 2 workers of 20 ms each");
}

#[test]
fn health_is_answered_while_all_workers_are_busy() {
    let (_dir, app) = app(300);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| get(&app, "/item/1"));
        }
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        assert_eq!(get(&app, "/healthz").status, 200);
        assert!(began.elapsed() < Duration::from_millis(150));
    });
}

#[test]
fn memory_and_disk_are_filled_overwritten_and_summed() {
    let (_dir, app) = app(0);
    for (fill, overwrite, sum) in [
        ("/memory/fill?mib=1&seed=1", "/memory/overwrite?seed=2", "/memory/checksum"),
        ("/disk/write?mib=1&seed=1", "/disk/overwrite?seed=2", "/disk/checksum"),
    ] {
        let filled = get(&app, fill);
        assert!(filled.status == 200 && filled.body.contains("\"bytes\":1048576"), "{filled:?}");
        assert_eq!(get(&app, sum), filled);
        assert_ne!(get(&app, overwrite), filled);
        assert_eq!(get(&app, fill), filled);
    }
}

#[test]
fn wrong_requests_are_refused_with_the_reason() {
    let (_dir, app) = app(0);
    for (target, status, word) in [
        ("/nothing", 404, "no such page"),
        ("/item/x", 400, "number"),
        ("/memory/fill?seed=1", 400, "mib"),
        ("/memory/fill?mib=0&seed=1", 400, "1..=1024"),
        ("/memory/other", 404, "no such page"),
        ("/disk/checksum", 500, "No such file"),
    ] {
        let response = get(&app, target);
        assert!(response.status == status && response.body.contains(word), "{target}: {response:?}");
    }
    let post = Request { is_get: false, target: "/".into(), keep_alive: true };
    assert_eq!(app.answer(&post).status, 405);
}

#[test]
fn random_and_identity_are_json() {
    let (_dir, app) = app(0);
    assert_ne!(get(&app, "/random"), get(&app, "/random"));
    let identity = get(&app, "/identity").body;
    for key in ["clone", "hostname", "machine_id", "macs", "ips", "unix_time_ns", "boot_id", "uptime_seconds"]
    {
        assert!(identity.contains(&format!("\"{key}\":")), "{identity}");
    }
}
