//! Whole configurations: the good ones as values, the bad ones as complaints.

use super::*;
use crate::pool::{Balance, HashBy, HealthSettings, ProbeKind, QueueSettings};

/// A certificate and its key in one file, whatever file is asked for.
fn pem() -> Vec<u8> {
    static MADE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        made.cert.pem() + &made.signing_key.serialize_pem()
    };
    MADE.get_or_init(make).clone().into_bytes()
}

fn parse(text: &str) -> Result<Config, Complaints> {
    Config::parse(
        text,
        &Surroundings {
            folder: Path::new("/etc/flurry"),
            exists: &|_| true,
            read: &|_| Ok(pem()),
            in_memory: &|_| true,
        },
    )
}

fn complaints(text: &str) -> String {
    parse(text).expect_err("the configuration is wrong").to_string()
}

/// Every complaint is expected, and every expected one is there.
fn assert_all_said(complaints: &str, expected: &[&str]) {
    for one in expected {
        assert!(complaints.contains(one), "{one} in:\n{complaints}");
    }
    assert_eq!(complaints.lines().count(), expected.len(), "{complaints}");
}

const STATIC: &str = "listen: [127.0.0.1:8080]\nbackends: [127.0.0.1:9001]\n";

#[test]
fn the_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|it| it != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        parse(&text).unwrap_or_else(|complaints| panic!("{}:\n{complaints}", path.display()));
        seen += 1;
    }
    assert!(seen >= 2);
}

#[test]
fn a_short_configuration_has_the_documented_defaults() {
    let config = parse(STATIC).unwrap();
    assert_eq!(config.name, "tier");
    assert_eq!(config.admin, "127.0.0.1:9900".parse().unwrap());
    assert_eq!((config.workers, config.pool.max_in_flight), (None, None));
    assert_eq!(config.pool.health, HealthSettings::default());
    assert_eq!(config.pool.queue, QueueSettings::default());
    assert_eq!(config.timeouts, Timeouts::default());
    assert!(config.vm.is_none());
}

#[test]
fn the_example_of_a_vm_tier_shows_the_defaults() {
    let text = include_str!("../../../deploy/examples/vm.yaml");
    let shown = parse(text).unwrap();
    let short = "name: demo\nlisten: [0.0.0.0:8080]\nvm: {image: /var/lib/flurry/demo}\n";
    let mut defaults = parse(short).unwrap();
    let (shown_vm, default_vm) = (shown.vm.clone().unwrap(), defaults.vm.as_mut().unwrap());
    default_vm.vm.warm = shown_vm.vm.warm.clone();
    assert_eq!(shown_vm, *default_vm);
    assert_eq!((shown.pool.queue, &shown.timeouts), (defaults.pool.queue, &defaults.timeouts));
    assert_eq!(shown.pool.health, HealthSettings { path: "/healthz".into(), ..defaults.pool.health });
    let paths: Vec<String> = shown_vm.vm.warm.iter().flat_map(WarmRequests::paths).collect();
    assert_eq!((paths.len(), paths[0].as_str(), paths[200].as_str()), (201, "/item/1", "/"));
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = "
name: My Shop
listen: [127.0.0.1:9900, localhost:80]
admin: 0.0.0.0:9900
workers: 0
backends: [127.0.0.1:0, 127.0.0.1:9001, 127.0.0.1:9001]
max_inflight: 3
health: {path: healthz, interval: 1, healthy_after: 0}
queue: {timeout: 0s}
timeouts: {idle: soon}
scaling: {min: 3, max: 2}
";
    assert_eq!(
        complaints(text),
        "name: must be 1 to 32 of a-z, 0-9 and -, not beginning with -, got `My Shop` (give the tier a short name, e.g. shop)\n\
         listen[1]: must be an IP address with a port, got `localhost:80` (give addresses with ports, e.g. [0.0.0.0:80])\n\
         admin: must be a loopback address, got 0.0.0.0:9900 (give a loopback address and a port, e.g. 127.0.0.1:9900)\n\
         workers: must be at least 1, got 0 (give a number of threads, e.g. 2, or leave it out for one per processor)\n\
         backends[0]: must have a port above 0, got 127.0.0.1:0 (give the address and port of a backend, e.g. 127.0.0.1:9001)\n\
         health.path: must be a path that begins with /, got `healthz` (give the path that a well backend answers with 200 to 399, e.g. /healthz)\n\
         health.interval: must be a duration with a unit, got 1 (give the time between two probes, e.g. 1s)\n\
         health.healthy_after: must be at least 1, got 0 (give the good probes in a row that readmit a backend, e.g. 1)\n\
         queue.timeout: must be at least 10ms, got 0s (give the longest wait for a backend, e.g. 10s)\n\
         scaling.max: must be at least min, which is 3, got 2 (give the most backends to have, the parent included, e.g. 8)\n\
         timeouts.idle: must be a duration of 0 or more, got `soon` (give the time that connections without a request are kept, e.g. 60s)\n\
         scaling: is given without `vm` (remove it, or give a section `vm`)\n\
         admin: 127.0.0.1:9900 collides with listen[0], 127.0.0.1:9900 (give the admin listener a port of its own)\n\
         backends[1]: 127.0.0.1:9001 is backends[0] already (remove one of them)\n\
         max_inflight: is not a known key (did you mean `max_in_flight`?)"
    );
}

#[test]
fn a_vm_is_checked_key_by_key() {
    let text = "
listen: [0.0.0.0:80]
scaling: {max: 100}
vm:
  memory_mib: 32
  vcpus: 17
  port: 65536
  accelerator: xen
  network: 192.168.0.0/28
  boot_deadline: 1ms
  guest_api: {clones: 49}
  state_dir: run
  warm: [{path: 'item/{n}', to: 3}, {path: '/item/{n}'}, {path: /, from: 2}, {path: '/{n}', from: 5, to: 4}, {}]
";
    assert_eq!(
        complaints(text),
        "vm.image: is missing (give what `flurry image build` made, e.g. /var/lib/flurry/demo)\n\
         vm.memory_mib: must be at least 64, got 32 (give the memory of each VM in MiB, e.g. 256)\n\
         vm.vcpus: must be at most 16, got 17 (give 1 to 16 virtual processors)\n\
         vm.port: must be at most 65535, got 65536 (give the port on which the guest serves HTTP, e.g. 80)\n\
         vm.accelerator: must be one of auto, tcg, kvm, got `xen` (write auto, tcg or kvm)\n\
         vm.boot_deadline: must be at least 100ms, got 1ms (give the longest time for the parent to boot, e.g. 60s)\n\
         vm.guest_api.clones: must be at most 48, got 49 (give the number of clones that programs in the guest may have, e.g. 4)\n\
         vm.warm[0].path: must be a path that begins with /, got `item/{n}` (give a path, e.g. /item/{n})\n\
         vm.warm[1].to: is missing (give the last number, e.g. 200)\n\
         vm.warm[2].path: has no {n}, but numbers are given (write {n} where the number goes)\n\
         vm.warm[3].to: must be from `from`, which is 5, to 1000000 more, got 4 (give the last number, e.g. 200)\n\
         vm.warm[4].path: is missing (give a path, e.g. /item/{n})\n\
         vm.state_dir: must be an absolute path of at least two folders without .., got `run` (give a folder on a tmpfs, e.g. /run/flurry/shop)"
    );
}

#[test]
fn clones_of_the_guest_need_room_in_the_network_too() {
    let text = "listen: [0.0.0.0:80]\nscaling: {max: 10}\n\
                vm: {image: i, network: 192.168.0.0/28, guest_api: {clones: 3}}\n";
    assert_eq!(
        complaints(text),
        "vm.network: 192.168.0.0/28 has room for 12 backends, and scaling.max is 10, vm.guest_api.clones 3 \
         (give a larger network, e.g. 10.117.0.0/16)"
    );
}

#[test]
fn a_network_too_small_for_the_tier_is_refused() {
    let text = "listen: [0.0.0.0:80]\nscaling: {max: 100}\nvm: {image: i, network: 192.168.0.0/28}\n";
    assert_eq!(
        complaints(text),
        "vm.network: 192.168.0.0/28 has room for 12 backends, and scaling.max is 100 (give a larger network, e.g. 10.117.0.0/16)"
    );
}

#[test]
fn the_state_folder_is_in_memory_where_there_is_such_a_folder() {
    let text = "name: shop\nlisten: [0.0.0.0:80]\nvm: {image: images/demo}\n";
    let default = |in_memory: &dyn Fn(&Path) -> bool| {
        let folder = Path::new("/etc/flurry");
        let around = Surroundings { folder, exists: &|_| true, read: &|_| Ok(pem()), in_memory };
        Config::parse(text, &around).unwrap().vm.unwrap().vm.state_dir
    };
    assert_eq!(default(&|_| true), Path::new("/run/flurry/shop"));
    assert_eq!(default(&|path| path == Path::new("/dev/shm")), Path::new("/dev/shm/flurry/shop"));
    assert_eq!(default(&|_| false), Path::new("/run/flurry/shop"));
}

#[test]
fn an_image_is_looked_for_beside_the_file() {
    let text = "listen: [0.0.0.0:80]\nvm: {image: images/demo}\n";
    let found = parse(text).unwrap().vm.unwrap().vm.image;
    assert_eq!(found, Path::new("/etc/flurry/images/demo"));
    let nothing = Surroundings {
        folder: Path::new("/etc/flurry"),
        exists: &|_| false,
        read: &|path| std::fs::read(path),
        in_memory: &|_| true,
    };
    let complaint = Config::parse(text, &nothing).unwrap_err().to_string();
    assert!(complaint.starts_with("vm.image: /etc/flurry/images/demo does not exist"), "{complaint}");
}

#[test]
fn nothing_to_forward_to_is_a_complaint() {
    let complaint = complaints("listen: [0.0.0.0:80]\n");
    assert!(complaint.starts_with("backends: is missing, and so is `vm`"), "{complaint}");
}

#[test]
fn flurry_does_not_forward_to_itself() {
    for backend in ["127.0.0.1:80", "127.0.0.1:9900"] {
        let text = format!("listen: [0.0.0.0:80]\nbackends: ['{backend}']\n");
        assert!(complaints(&text).contains("is Flurry itself"), "{backend}");
    }
    parse("listen: [0.0.0.0:80]\nbackends: ['10.0.0.2:80']\n").unwrap();
}

#[test]
fn listeners_that_collide_are_refused() {
    let text = "listen: [0.0.0.0:80, 127.0.0.1:80]\nbackends: ['10.0.0.2:80']\n";
    assert!(complaints(text).starts_with("listen[1]: 127.0.0.1:80 collides with listen[0], 0.0.0.0:80"));
}

#[test]
fn a_syntax_error_names_the_file_and_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flurry.yaml");
    std::fs::write(&file, "name: shop\nlisten: [127.0.0.1:80\nadmin: x\n").unwrap();
    let error = Config::load(&file).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: line ", file.display())), "{error}");
    let missing = Config::load(&folder.path().join("none.yaml")).unwrap_err().to_string();
    assert!(missing.contains("none.yaml: cannot be read: No such file"), "{missing}");
}

#[test]
fn what_is_wrong_with_listeners_and_certificates_is_said_with_its_key() {
    let read = |path: &Path| match path.ends_with("good.pem") {
        true => Ok(pem()),
        false => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let surroundings = Surroundings {
        folder: Path::new("/etc/flurry"),
        exists: &|_| true,
        read: &read,
        in_memory: &|_| true,
    };
    let text = "
listen:
  - unix:web.sock
  - {address: 127.0.0.1:443, tls: {certificates: [{chain: good.pem, key: none.key}]}}
  - {address: 127.0.0.1:444, tls: {}, proxy_protocol: {from: [here]}}
backends: [127.0.0.1:9001]
trusted_proxies: []
upstream: {tls: {name: app.internal}, proxy_protocol: v3}
";
    let complaints = Config::parse(text, &surroundings).unwrap_err().to_string();
    assert_all_said(
        &complaints,
        &[
            "listen[0]: must be an absolute path of at most 107 bytes, got `web.sock`",
            "listen[1].tls.certificates[0].key: cannot read /etc/flurry/none.key: entity not found",
            "listen[2].tls.certificates: is missing",
            "listen[2].proxy_protocol.from[0]: must be a network, got `here`",
            "trusted_proxies: must not be empty",
            "upstream.tls.roots: is missing",
            "upstream.proxy_protocol: must be one of v1, v2, got `v3`",
        ],
    );
}

#[test]
fn what_is_wrong_with_pools_and_routes_is_said_with_its_key() {
    let text = "
listen: [127.0.0.1:80]
pools:
  api: {backends: [127.0.0.1:9001]}
  empty: {}
routes:
  - {hosts: [a b], path: api, pool: nowhere, methods: [G T]}
  - {name: api, path: /a, exact_path: /b, pool: api, respond: {status: 99}}
  - {name: api, redirect: {to: 'https://{where}'}, listeners: [inner]}
  - {path: /x, pool: api, request_headers: {set: {Host: x, x-a: y}, remove: [a b]}}
  - {pool: api, rewrite: {prefix: /y}}
";
    let complaints = complaints(text);
    assert_all_said(
        &complaints,
        &[
            "pools.empty.backends: is missing",
            "pools.empty: no route leads to it",
            "routes[0].hosts[0]: must be a host name or *.NAME, got `a b`",
            "routes[0].path: must be a path that begins with /, got `api`",
            "routes[0].methods[0]: must be a method in capitals, got `G T`",
            "routes[0].pool: there is no pool `nowhere`",
            "routes[1].exact_path: is given beside `path`",
            "routes[1]: has several of `pool`, `redirect`, `respond` and `connect`",
            "routes[1].respond.status: must be at least 200, got 99",
            "routes[2].redirect.to: must be a URL in which {host} and {path} may stand",
            "routes[2].listeners[0]: there is no listener `inner`",
            "routes[3].request_headers.set.Host: `host` frames the message",
            "routes[3].request_headers.remove[0]: must be the name of a header field",
            "routes[4].rewrite.prefix: is given without `path`",
            "routes[2].name: `api` is the name of another route already",
            "backends: is missing, and so is `vm`",
        ],
    );
}

#[test]
fn routes_with_names_of_others_and_without_backends_are_refused() {
    let text = "listen: [127.0.0.1:80]\nroutes: [{name: a, respond: {}}, {name: a, path: /x}]\n";
    let complaints = complaints(text);
    assert!(complaints.contains("routes[1].name: `a` is the name of another route"), "{complaints}");
    assert!(complaints.contains("backends: is missing"), "{complaints}");
    assert!(parse("listen: [127.0.0.1:80]\nroutes: [{respond: {status: 200}}]\n").is_ok());
}

#[test]
fn what_a_balance_policy_lacks_is_said() {
    let with = |balance: &str| parse(&format!("{STATIC}balance: {balance}\n"));
    assert_eq!(with("{policy: hash, by: path}").unwrap().pool.balance, Balance::Hash(HashBy::Path));
    assert_eq!(with("{}").unwrap().pool.balance, Balance::TwoChoices);
    for (balance, complaint) in [
        (
            "{policy: best}",
            "balance.policy: must be one of two_choices, round_robin, least_requests, peak_ewma, hash",
        ),
        ("{policy: hash, by: cookie}", "balance.cookie: and `by: cookie` need each other"),
        ("{cookie: a b}", "balance.cookie: must be the name of a cookie, got `a b`"),
        ("{policy: hash, by: header}", "balance.header: and `by: header` need each other"),
        ("{policy: round_robin, by: path}", "balance.by: is given without `policy: hash`"),
    ] {
        let complaints = with(balance).unwrap_err().to_string();
        assert!(complaints.contains(complaint), "{balance}: {complaints}");
    }
}

#[test]
fn a_probe_is_of_a_kind_and_has_no_keys_of_another() {
    let with = |health: &str| parse(&format!("{STATIC}{health}\n"));
    let kind = |health: &str| with(health).unwrap().pool.health.kind;
    assert_eq!(kind("health: {path: /a}"), ProbeKind::Http);
    assert_eq!(kind("health: {kind: connect}"), ProbeKind::Connect);
    let grpc = "health: {kind: grpc, service: a.B}\nupstream: {http2: true}";
    assert_eq!(kind(grpc), ProbeKind::Grpc("a.B".to_owned()));
    for (health, complaint) in [
        ("health: {kind: icmp}", "health.kind: must be one of http, grpc, connect, got `icmp`"),
        ("health: {kind: connect, path: /a}", "health.path: has no effect with `kind: connect`"),
        ("health: {service: a.B}", "health.service: has no effect with `kind: http`"),
        ("health: {kind: grpc}", "health.kind: is grpc, which needs HTTP/2"),
        ("health: {kind: grpc, service: ''}", "health.service: must be 1 to 127 bytes, got 0"),
        ("upstream: {ping_interval: 10s}", "upstream.ping_interval: has no effect without `http2: true`"),
    ] {
        let complaints = with(health).unwrap_err().to_string();
        assert!(complaints.contains(complaint), "{health}: {complaints}");
    }
}

#[test]
fn who_may_send_proxy_headers_must_be_said() {
    let text = "listen: [{address: 127.0.0.1:80, proxy_protocol: {}}]\nbackends: [127.0.0.1:9001]\n";
    let complaints = complaints(text);
    assert!(
        complaints.starts_with("listen[0].proxy_protocol.from: is missing (give the networks"),
        "{complaints}"
    );
}

#[test]
fn keys_without_effect_are_refused() {
    const LISTEN: &str = "listen: [127.0.0.1:80]\n";
    let api = "pools: {api: {backends: [127.0.0.1:9001]}}\nroutes: [{pool: api}]\n";
    for (text, complaint) in [
        (
            "routes: [{redirect: {to: /x}, rewrite: {host: a}}]".into(),
            "routes[0].rewrite: has no effect beside `redirect`",
        ),
        (
            "routes: [{respond: {}, request_headers: {}}]".into(),
            "routes[0].request_headers: has no effect beside `respond`",
        ),
        (
            "routes: [{respond: {}, response_timeout: 1s}]".into(),
            "routes[0].response_timeout: has no effect beside `respond`",
        ),
        (
            "routes: [{respond: {}, priority: high}]".into(),
            "routes[0].priority: has no effect beside `respond`",
        ),
        (
            "routes: [{respond: {}, hosts: ['a.test:80']}]".into(),
            "routes[0].hosts[0]: must be a host name without a port",
        ),
        (
            "routes: [{respond: {}, methods: [get]}]".into(),
            "routes[0].methods[0]: must be a method in capitals, got `get`",
        ),
        ("routes: [{respond: {}, path: '/a?b'}]".into(), "routes[0].path: must be a path without a query"),
        (
            "routes: [{redirect: {to: /x, status: 304}}]".into(),
            "routes[0].redirect.status: must be one of 301, 302, 303, 307, 308, got 304",
        ),
        (
            "routes: [{name: default, respond: {}}]".into(),
            "routes[0].name: `default` is what stands for requests",
        ),
        (
            "pools: {api: {backends: [127.0.0.1:9001]}}\nroutes: [{respond: {}}]".into(),
            "pools.api: no route leads to it (give a route with `pool: api`, or remove the pool)",
        ),
        (api.replace("api", "default"), "pools.default: `default` is what the backends at the top"),
        (api.replace("9001", "80"), "pools.api.backends[0]: 127.0.0.1:80 is Flurry itself"),
        (
            "backends: [127.0.0.1:9001]\nupstream: {tls: {name: a, verify: false, roots: a.pem}}".to_owned(),
            "upstream.tls.roots: has no effect with `verify: false`",
        ),
        ("vm: {image: i}\nupstream: {http2: true}".into(), "upstream: is given beside `vm`"),
        ("vm: {image: i}\nupstream: {proxy_protocol: v1}".into(), "upstream: is given beside `vm`"),
        ("vm: {image: i}\nhealth: {kind: connect}".into(), "health.kind: is given beside `vm`"),
    ] {
        let complaints = complaints(&format!("{LISTEN}{text}\n"));
        assert!(complaints.contains(complaint), "{text}: {complaints}");
        assert_eq!(complaints.lines().count(), 1, "{complaints}");
    }
    parse(&format!("{LISTEN}{api}")).unwrap();
}

#[test]
fn what_is_wrong_with_weights_outliers_and_cookies_is_said_with_its_key() {
    let read = |path: &Path| Ok(if path.ends_with("short") { b"short".to_vec() } else { vec![b'x'; 32] });
    let surroundings = Surroundings {
        folder: Path::new("/etc/flurry"),
        exists: &|_| true,
        read: &read,
        in_memory: &|_| true,
    };
    let text = "
listen: [127.0.0.1:80]
backends: [{address: 127.0.0.1:9001, weight: 0}, {weight: 2}, {address: here, wait: 3}]
outliers:
  max_ejected: 110%
  ejection_time: 10m
  max_ejection_time: 1m
  success_rate: {min_backends: 1, deviations: -1}
sticky: {cookie: a=b, secret_file: short, max_age: 0s, same_site: never}
";
    let complaints = Config::parse(text, &surroundings).unwrap_err().to_string();
    assert_all_said(
        &complaints,
        &[
            "backends[0].weight: must be at least 1, got 0",
            "backends[1].address: is missing",
            "backends[2].address: must be an IP address with a port, got `here`",
            "backends[2].wait: is not a known key",
            "outliers.max_ejected: must be at most 1, got 1.1",
            "outliers.max_ejection_time: must not be shorter than `ejection_time`",
            "outliers.success_rate.min_backends: must be at least 2, got 1",
            "outliers.success_rate.deviations: must be at least 0, got -1",
            "sticky.cookie: must be the name of a cookie, got `a=b`",
            "sticky.secret_file: /etc/flurry/short holds less than 16 bytes",
            "sticky.max_age: must be at least 1s, got 0s",
            "sticky.same_site: must be one of lax, strict, none, got `never`",
        ],
    );
}

#[test]
fn what_is_wrong_with_limits_and_priorities_is_said_with_its_key() {
    let text = "
listen: [127.0.0.1:80]
backends: [127.0.0.1:9001]
connections_per_client: 0
max_in_flight: 3
adaptive_concurrency: {min: 0, max: 4000000000, tolerance: 1, mix: 3}
queue: {priority_header: a b}
rate_limits:
  - {requests: 0, per: 0s, burst: 0, max_keys: 1}
  - {name: Log In, by: header, requests: 1}
  - {by: everybody}
  - {name: a, requests: 1}
  - {name: a, requests: 1, header: x-a}
routes:
  - {priority: top, queue_timeout: 0s, retries: {share: 200%, per_second: -1}, rate_limits: [{by: client}]}
";
    let complaints = complaints(text);
    assert_all_said(
        &complaints,
        &[
            "connections_per_client: must be at least 1, got 0",
            "queue.priority_header: must be the name of a header field, got `a b`",
            "max_in_flight: is given beside `adaptive_concurrency`",
            "adaptive_concurrency.min: must be at least 1, got 0",
            "adaptive_concurrency.tolerance: must be at least 1.1, got 1",
            "adaptive_concurrency.mix: is not a known key",
            "rate_limits[0].requests: must be at least 1, got 0",
            "rate_limits[0].per: must be at least 1ms, got 0s",
            "rate_limits[0].burst: must be at least 1, got 0",
            "rate_limits[0].max_keys: must be at least 32, got 1",
            "rate_limits[1].header: and `by: header` need each other",
            "rate_limits[1].name: must be 1 to 32 of a-z, 0-9 and -, got `Log In`",
            "rate_limits[2].by: must be one of everyone, client, header, got `everybody`",
            "rate_limits[2].requests: is missing",
            "rate_limits[4].header: and `by: header` need each other",
            "rate_limits[4].name: `a` is the name of another limit already",
            "routes[0].rate_limits[0].requests: is missing",
            "routes[0].retries.share: must be at most 1, got 2",
            "routes[0].retries.per_second: must be at least 0, got -1",
            "routes[0].priority: must be one of high, normal, low, got `top`",
            "routes[0].queue_timeout: must be at least 1ms, got 0s",
        ],
    );
}

#[test]
fn an_access_log_goes_to_one_place_and_complaints_say_which_key() {
    let log = |keys: &str| parse(&format!("{STATIC}access_log: {keys}\n"));
    let read = log("{path: logs/access.log}").unwrap().account.log.unwrap();
    assert_eq!(read.to, crate::account::Destination::File("/etc/flurry/logs/access.log".into()));
    assert!(read.query && read.max_waiting == 16_384);
    for (keys, complaint) in [
        ("{}", "access_log: says nowhere to write to"),
        ("{path: a, stdout: true}", "access_log.stdout: is given beside `path`"),
        ("{path: a, format: xml}", "access_log.format: "),
        ("{path: a, max_waiting: 0}", "access_log.max_waiting: must be at least 1"),
    ] {
        let complaints = log(keys).unwrap_err().to_string();
        assert!(complaints.contains(complaint), "{complaints}");
    }
}

#[test]
fn a_collector_is_named_by_a_url_and_spans_by_the_tier() {
    let tracing = |keys: &str| parse(&format!("{STATIC}name: shop\ntracing: {keys}\n"));
    let read = tracing("{endpoint: 'http://[::1]:4318/v1/traces', resource: {a: b}}").unwrap();
    let read = read.account.tracing.unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(read.resource, [pair("service.name", "shop"), pair("a", "b")]);
    assert_eq!((read.sample, read.trust), (0.0, crate::account::Trust::Proxies));
    for (keys, complaint) in [
        ("{endpoint: 'https://x/'}", "tracing.endpoint: must be a URL that begins with http://"),
        ("{endpoint: 'x y'}", "tracing.endpoint: must be a URL"),
        ("{sample: 101%}", "tracing.sample: must be at most"),
        ("{trust: me}", "tracing.trust: "),
        ("{timeout: 0s}", "tracing.timeout: must be at least"),
    ] {
        let complaints = tracing(keys).unwrap_err().to_string();
        assert!(complaints.contains(complaint), "{complaints}");
    }
}

#[test]
fn connect_needs_targets_and_nothing_about_backends() {
    let route = |keys: &str| parse(&format!("{STATIC}routes: [{{{keys}}}]\n"));
    let read = route("connect: {to: ['*.example.org:443']}, listeners: []").unwrap_err().to_string();
    assert!(read.contains("listeners: must not be empty"), "{read}");
    let read = route("connect: {to: ['*.example.org:443']}").unwrap();
    assert_eq!(read.routes[0].matcher.methods, [http::Method::CONNECT]);
    for (keys, complaint) in [
        ("connect: {}", "routes[0].connect.to: "),
        (
            "connect: {to: [example.org]}",
            "routes[0].connect.to[0]: must be a host and a port, got `example.org`",
        ),
        ("connect: {to: ['*:1']}, path: /x", "routes[0].path: has no effect beside `connect`"),
        ("connect: {to: ['*:1']}, retries: {}", "routes[0].retries: has no effect beside `connect`"),
        ("connect: {to: ['*:1']}, respond: {}", "has several of `pool`, `redirect`, `respond` and `connect`"),
    ] {
        let complaints = route(keys).unwrap_err().to_string();
        assert!(complaints.contains(complaint), "{complaints}");
    }
}
