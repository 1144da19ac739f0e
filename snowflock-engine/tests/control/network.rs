//! What guests rely on in their private network.

use std::process::Command;

use snowflock_engine::network::Network;
use snowflock_engine::network::identity::{CloneId, gateway_mac};

/// Taps have random addresses: among so many, some are lower than any other that the bridge may have.
const TAPS: u32 = 12;

#[test]
fn the_gateway_keeps_its_hardware_address_when_taps_come_and_go() {
    let name = format!("n-gateway-{}", std::process::id());
    let network = Network::create(&name, "10.63.9.0/24".parse().unwrap(), None).unwrap();
    let _broom = Broom(name.clone());
    let mut ports = Vec::new();
    for id in 1..=TAPS {
        ports.push(network.add_port(CloneId(id)).unwrap());
        assert_eq!(address_of_bridge(network.namespace()), gateway_mac(&name).to_string(), "with {id} taps");
    }
    drop(ports.drain(..6));
    assert_eq!(address_of_bridge(network.namespace()), gateway_mac(&name).to_string());
}

/// Removes the network, whatever comes of the test.
struct Broom(String);

impl Drop for Broom {
    fn drop(&mut self) {
        let removed = Network::remove(&self.0);
        assert!(std::thread::panicking() || removed.is_ok(), "{removed:?}");
    }
}

fn address_of_bridge(namespace: &str) -> String {
    let shown = Command::new("ip").args(["-n", namespace, "-o", "link", "show", "br0"]).output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    let word = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    word.unwrap_or_else(|| panic!("no address in {text:?}")).to_owned()
}
