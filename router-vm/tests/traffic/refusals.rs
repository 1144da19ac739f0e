//! What cannot be is told with its reason, and leaves nothing behind.

use std::process::Command;

use router_vm::host::{Mode, Router, Site, VmKind};

use crate::world::{World, config, modes, vm_mode};

/// Devices in the world's namespace beside the loopback one.
fn devices(world: &World) -> usize {
    let mut list = Command::new("ip");
    let output = list.args(["-n", &world.namespace("world"), "-o", "link"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(": rt")).count()
}

#[test]
fn a_namespace_that_is_not_there_is_named_and_nothing_is_left() {
    for (name, mode) in modes() {
        let world = World::new();
        let site = Site { namespace: "flurry-nowhere".into(), ..world.site() };
        let said = Router::start(site, &mode, &config("")).unwrap_err().to_string();
        assert!(said.contains("flurry-nowhere"), "{name}: {said}");
        assert_eq!(devices(&world), 0, "{name}");
    }
}

#[test]
fn a_folder_without_an_image_is_named_and_nothing_is_left() {
    let world = World::new();
    let Mode::Vm(kind) = vm_mode() else { panic!("a mode with a VM") };
    let mode = Mode::Vm(VmKind { image: "/nonexistent/router".into(), ..kind });
    let said = Router::start(world.site(), &mode, &config("")).unwrap_err().to_string();
    assert!(said.contains("/nonexistent/router/vmlinux"), "{said}");
    assert_eq!(devices(&world), 0);
}

#[test]
fn a_stopped_router_leaves_no_device_and_no_way_out() {
    for (name, mode) in modes() {
        let world = World::new();
        let router = world.router(&mode, "outbound: {default: allow}\n");
        assert!(devices(&world) > 0, "{name}");
        drop(router);
        assert_eq!(devices(&world), 0, "{name}");
        assert!(world.unreachable("clone", crate::world::SERVER, 443), "{name}");
    }
}

#[test]
fn rules_that_the_kernel_refuses_change_nothing() {
    let world = World::new();
    let router = world.router(&Mode::Distributed, "outbound: {default: allow}\n");
    let listed = || world.at("net", || router_vm::netlink::nft::counts().unwrap().len());
    let before = listed();
    let mut plan = router_vm::plan::Plan::of(&config("limits: {up: {each: 8mbit}}\n"));
    // The rule then names a set that is not there.
    plan.rules.meters.clear();
    let refused = world.at("net", || router_vm::netlink::nft::load(&plan.rules)).unwrap_err().to_string();
    assert!(refused.contains("rule: "), "{refused}");
    assert_eq!((listed(), before), (8, 8), "the former table is there");
    let server = world.listen("world", crate::world::SERVER, 443);
    world.reach("clone", crate::world::SERVER, 443, &server).unwrap();
    drop(router);
}
