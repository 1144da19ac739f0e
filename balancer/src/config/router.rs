//! `vm.router`: the way out of the private network. `router-vm/ROUTER.md` describes its own keys.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use router_vm::address::Network;
use router_vm::config::{self, Config, Private};
use scaler::yaml::Section;

use super::Surroundings;
use super::network::Ipv4Prefix;
use super::vm::existing;

/// Bridge and network address come before the parent's.
const PARENT: u32 = 2;

/// The router of a tier.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterConfig {
    /// Who applies its rules.
    pub mode: RouterMode,
    /// Its rules, and its place in the world.
    pub config: Config,
}

/// Who applies the rules.
#[derive(Debug, Clone, PartialEq)]
pub enum RouterMode {
    /// A VM of this image: what `flurry image router` made.
    Vm(PathBuf),
    /// This host, in the namespace of the network's bridge.
    Distributed,
}

#[derive(Clone, Copy, PartialEq)]
enum Word {
    None,
    Vm,
    Distributed,
}

/// Reads the key; `None` if it is not there or says so.
pub(super) fn read(
    vm: &mut Section<'_>,
    network: Ipv4Prefix,
    around: &Surroundings<'_>,
) -> Option<RouterConfig> {
    let entry = vm.entry("router");
    if entry.is_text() {
        let remedy = "write none, or a section with `mode` and `world`";
        entry.choice(&[("none", Word::None)], remedy).optional();
        return None;
    }
    vm.optional_section("router", |s| section(s, private(network), around)).flatten()
}

fn section(s: &mut Section<'_>, private: Private, around: &Surroundings<'_>) -> Option<RouterConfig> {
    let words = [("vm", Word::Vm), ("distributed", Word::Distributed)];
    let mode = s.choice("mode", &words, "write vm or distributed").required();
    let image = s.path_buf("image", "give what `flurry image router` made, e.g. /var/lib/flurry/router");
    let image = image.try_map(|path| existing(&path, around));
    let image = if mode == Some(Word::Vm) { image.required() } else { image.optional() };
    let config = config::read(s, private);
    let mode = match mode? {
        Word::Vm => RouterMode::Vm(image?),
        Word::Distributed | Word::None => RouterMode::Distributed,
    };
    Some(RouterConfig { mode, config: config? })
}

fn private(network: Ipv4Prefix) -> Private {
    let first = network.address().to_bits();
    Private {
        network: Network::around(network.address(), network.length()),
        parent: Ipv4Addr::from_bits(first + PARENT),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(router: &str, exists: bool) -> Result<Option<RouterConfig>, String> {
        let around = Surroundings {
            folder: Path::new("/etc"),
            exists: &move |_| exists,
            read: &|_| Ok(Vec::new()),
            in_memory: &|_| true,
        };
        let network = "10.119.0.0/16".parse().unwrap();
        let read = scaler::yaml::read(router, |vm| Some(read(vm, network, &around)));
        read.map_err(|complaints| complaints.to_string())
    }

    const WORLD: &str = "world: {address: 192.0.2.2/30, gateway: 192.0.2.1}";

    #[test]
    fn there_is_no_router_unless_one_is_asked_for() {
        assert_eq!(parse("", true), Ok(None));
        assert_eq!(parse("router: none\n", true), Ok(None));
        assert!(parse("router: vm\n", true).unwrap_err().contains("router: "));
    }

    #[test]
    fn a_router_knows_the_parent_and_a_vm_its_image() {
        let yaml = format!("router: {{mode: vm, image: router, {WORLD}, outbound: {{default: allow}}}}\n");
        let router = parse(&yaml, true).unwrap().unwrap();
        assert_eq!(router.mode, RouterMode::Vm("/etc/router".into()));
        assert_eq!(router.config.private.parent, Ipv4Addr::new(10, 119, 0, 2));
        let said = parse(&yaml, false).unwrap_err();
        assert!(said.contains("router.image: /etc/router does not exist"), "{said}");
    }

    #[test]
    fn a_missing_mode_image_or_place_is_told_with_its_key() {
        let said = parse("router: {outbund: {}}\n", true).unwrap_err();
        for key in ["router.mode: ", "router.world.address: ", "router.outbund: is not a known key"] {
            assert!(said.contains(key), "{key} is not in {said}");
        }
        let said = parse(&format!("router: {{mode: vm, {WORLD}}}\n"), true).unwrap_err();
        assert!(said.contains("router.image: "), "{said}");
        let mode = parse(&format!("router: {{mode: distributed, {WORLD}}}\n"), true).unwrap().unwrap().mode;
        assert_eq!(mode, RouterMode::Distributed);
    }
}
