//! What the scaler is told of the load.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use balancer::front::Front;
use balancer::load::Sample;
use support::*;

/// A tier of VMs with a pool of fixed backends beside it; nobody starts the VMs.
async fn tier(api: &Backend, more: &str) -> Front {
    let site = Site::new();
    site.write("disk.qcow2", "");
    let config = site.config(&format!(
        "listen: ['127.0.0.1:0']
vm: {{image: disk.qcow2, memory_mib: 64}}
scaling: {{max: 2, target_concurrency: 4}}
pools: {{api: {{backends: ['{}']}}}}
routes: [{{name: api-path, path: /api, pool: api}}]
{more}",
        api.address
    ));
    Front::open(&config).await.unwrap()
}

/// A sample that knows of all that has happened by now.
async fn next_sample(front: &Front) -> Sample {
    let mut samples = front.handles().samples;
    for _ in 0..2 {
        samples.changed().await.unwrap();
    }
    *samples.borrow()
}

#[tokio::test]
async fn requests_to_other_pools_say_nothing_about_the_vms() {
    let api = Backend::text("api").await;
    let front = tier(&api, "").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..100 {
        assert_eq!(wire.get("/api").await.1, "api");
    }
    let sample = next_sample(&front).await;
    assert_eq!((sample.requests_per_second, sample.arrived_per_second), (0.0, 0.0));
    assert_eq!((sample.in_flight, sample.p95, sample.error_share), (0, None, None));
    assert_eq!(sample.requests_total, 100);
    let vm = Backend::text("vm").await;
    let pool = front.handles().pool;
    let id = pool.insert(spec(vm.address)).unwrap().id().clone();
    pool.wait_ready(&id).await.unwrap();
    assert_eq!(wire.get("/").await.1, "vm");
    let sample = next_sample(&front).await;
    assert!(sample.requests_per_second > 0.0 && sample.arrived_per_second > 0.0, "{sample:?}");
    assert_eq!((sample.p95.is_some(), sample.error_share), (true, Some(0.0)));
}

#[tokio::test]
async fn who_waits_in_vain_has_arrived_and_says_nothing_about_backends() {
    let api = Backend::text("api").await;
    let front = tier(&api, "queue: {timeout: 400ms}").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut samples = front.handles().samples;
    let waits = samples.wait_for(|sample| sample.queued == 1 && sample.arrived_per_second > 0.0);
    assert!(waits.await.unwrap().oldest_wait.is_some_and(|wait| wait < 10 * SECOND));
    assert!(wire.answer().await.0.starts_with("HTTP/1.1 503"));
    let sample = next_sample(&front).await;
    assert_eq!((sample.queued, sample.oldest_wait), (0, None));
    assert_eq!((sample.requests_per_second, sample.p95, sample.error_share), (0.0, None, None));
}

#[tokio::test]
async fn without_vms_all_pools_count() {
    let (web, api) = (Backend::text("web").await, Backend::text("api").await);
    let front = Site::new()
        .open(&format!(
            "listen: ['127.0.0.1:0']
backends: ['{}']
pools: {{api: {{backends: ['{}']}}}}
routes: [{{path: /api, pool: api}}]",
            web.address, api.address
        ))
        .await;
    assert_eq!(Wire::connect(&front).await.get("/api").await.1, "api");
    assert!(next_sample(&front).await.requests_per_second > 0.0);
}

#[tokio::test]
async fn a_refused_request_does_not_count_for_the_route_of_the_one_before() {
    let api = Backend::text("api").await;
    let front = tier(&api, "").await;
    let mut wire = Wire::connect(&front).await;
    assert_eq!(wire.get("/api").await.1, "api");
    wire.send("GET / HTTP/1.1\r\n\r\n").await;
    assert!(wire.rest().await.starts_with("HTTP/1.1 400"));
    eventually("both are counted", || front.handles().samples.borrow().requests_total == 2).await;
    let plan = front.handles().plan.load_full();
    let route = plan.all().find(|route| &*route.name == "api-path").unwrap();
    assert_eq!((route.load.sum(|it| &it.by_class[2]), route.load.sum(|it| &it.by_class[4])), (1, 0));
}
