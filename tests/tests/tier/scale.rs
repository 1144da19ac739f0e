//! Growth and shrinking under a played load, and all that can be seen of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use balancer::admin::status::Status;
use flurry_tests::programs;
use flurry_tests::tier::{Flurry, TierSite};
use serde_json::Value;

/// Seconds 0 to 3 one VM can carry, 4 to 13 it cannot, then again.
const TRACE: &str = "second,requests\n0,10\n3,10\n4,100\n13,100\n14,10\n17,10\n";
const PEAK: &str = "80";

const FAMILIES: [&str; 24] = [
    "flurry_requests_total",
    "flurry_requests_failed_total",
    "flurry_request_duration_seconds",
    "flurry_in_flight_requests",
    "flurry_queued_requests",
    "flurry_backends",
    "flurry_backend_requests_total",
    "flurry_retries_total",
    "flurry_build_info",
    "flurry_engine_fork_duration_seconds",
    "flurry_engine_checkpoint_pause_seconds",
    "flurry_engine_clones",
    "flurry_engine_clones_starved_total",
    "flurry_engine_shells",
    "flurry_engine_pages_total",
    "flurry_engine_faults_total",
    "flurry_engine_memory_processes_replaced_total",
    "flurry_scaler_desired_backends",
    "flurry_scaler_bound_backends",
    "flurry_scaler_backends",
    "flurry_scaler_decisions_total",
    "flurry_scaler_signal_value",
    "flurry_scaler_signal_target",
    "flurry_scaler_signal_age_seconds",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_grows_and_shrinks_with_its_load_says_why_and_loses_no_request() {
    let mut site = TierSite::new("scale");
    site.config.max = 3;
    let mut flurry = site.serving(1).await;
    let summary = play(&site).await;
    assert_eq!(summary["failed"], 0, "{summary:#}");
    assert!(summary["clones_max"].as_u64() >= Some(1), "{summary:#}");
    assert!(summary["requests_by_clone"].as_object().unwrap().len() >= 2, "{summary:#}");

    // Back to the parent alone, and every decision has its reason.
    let small = |status: &Status| {
        let clones = &status.engine.as_ref().unwrap().clones;
        status.scaling.ready == 1 && clones.iter().all(|clone| clone.state == "gone")
    };
    let status = flurry.shows("only the parent is left", small).await;
    for action in ["grow", "shrink"] {
        assert!(status.decisions.iter().any(|decision| decision.action == action), "{:?}", status.decisions);
    }
    assert!(status.decisions.iter().all(|decision| !decision.reason.is_empty()), "{:?}", status.decisions);
    assert_eq!(status.load.failed_total, 0);

    let metrics = flurry.admin_page("/metrics").await;
    for family in FAMILIES {
        assert!(metrics.contains(&format!("# TYPE {family} ")), "no {family}: {metrics}");
    }
    assert_status_program_tells_the_same(&flurry, &status);
    flurry.stop().await;
    site.site().assert_nothing_left();
}

/// Plays the load with `flurry replay`, and returns its summary.
async fn play(site: &TierSite) -> Value {
    let (trace, out) = (site.files().join("trace.csv"), site.files().join("replay"));
    fs::write(&trace, every_second(TRACE)).unwrap();
    let url = |address| format!("http://{address}");
    let mut replay = Command::new(programs::flurry());
    replay.arg("replay").arg("--trace").arg(&trace).arg("--out").arg(&out);
    replay.args(["--url", &url(site.config.listen), "--admin", &url(site.config.admin)]);
    replay.args(["--duration", "18s", "--peak", PEAK, "--path", "/item/{n}", "--items", "20"]);
    replay.args(["--settle", "60s", "--fail-on-error"]);
    let played = tokio::task::spawn_blocking(move || replay.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&played.stdout) + String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success(), "{}: {said}", played.status);
    assert!(is_picture(&out.join("timeline.svg")));
    serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap()
}

/// Fills the seconds between the given ones in, each like the one before.
fn every_second(trace: &str) -> String {
    let points: Vec<(u32, u32)> = trace
        .lines()
        .filter_map(|line| line.split_once(','))
        .filter_map(|(second, count)| Some((second.parse().ok()?, count.parse().ok()?)))
        .collect();
    let last = points.last().unwrap().0;
    let count = |second| points.iter().rev().find(|(from, _)| *from <= second).unwrap().1;
    let lines: String = (0..=last).map(|second| format!("{second},{}\n", count(second))).collect();
    format!("second,requests\n{lines}")
}

fn is_picture(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains("<svg"))
}

/// `flurry status` shows what the admin listener tells, for machines and for people.
fn assert_status_program_tells_the_same(flurry: &Flurry, status: &Status) {
    let show = |options: &[&str]| {
        let mut program = Command::new(programs::flurry());
        program.args(["status", "--admin", &flurry.admin.to_string()]).args(options);
        let shown = program.output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        String::from_utf8(shown.stdout).unwrap()
    };
    let parsed: Status = serde_json::from_str(&show(&["--json"])).unwrap();
    assert_eq!(parsed.tier, status.tier);
    assert_eq!(parsed.decisions[..status.decisions.len()], status.decisions[..]);
    let table = show(&[]);
    for part in [&status.tier.name, "parent"] {
        assert!(table.contains(part), "{table}");
    }
}
