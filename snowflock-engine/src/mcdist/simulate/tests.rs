//! Many seeds each run; `MCDIST_SEED=<seed> cargo nextest run -p snowflock-engine simulate` replays one.

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// The seeds of this run, or the one that is to be replayed.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("MCDIST_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let first = now.map_or(1, |time| time.as_micros() as u64);
            (first..first + count).collect()
        }
    }
}

fn replay(seed: u64) -> String {
    format!("MCDIST_SEED={seed} cargo nextest run -p snowflock-engine simulate replays this")
}

/// Runs and asserts that every receiver got all it wanted; wrong content panics by itself.
fn complete(scenario: &Scenario, seed: u64) -> Outcome {
    println!("{}", replay(seed));
    let outcome = run(scenario, seed, LIMIT);
    assert!(outcome.end().is_some(), "{scenario:?}\n{outcome:?}");
    outcome
}

#[test]
fn every_receiver_gets_all_it_wants_whatever_the_trouble() {
    for seed in seeds(300) {
        complete(&drawn(seed), seed);
    }
}

#[test]
fn a_seed_replays_to_the_last_datagram() {
    for seed in seeds(3) {
        let (once, again) = (run(&drawn(seed), seed, LIMIT), run(&drawn(seed), seed, LIMIT));
        assert_eq!((once.finished, once.sender, once.events), (again.finished, again.sender, again.events));
    }
}

#[test]
fn many_receivers_cost_little_more_than_one_whatever_each_loses() {
    for seed in seeds(2) {
        let scenario = Scenario {
            receivers: 128,
            pages: (4_096, 0),
            zero: 0.0,
            same: 0.0,
            loss: 0.01,
            ..Scenario::default()
        };
        let outcome = complete(&scenario, seed);
        assert!(outcome.payload_ratio <= 1.3, "{outcome:?}");
    }
}

#[test]
fn a_way_without_loss_costs_every_page_once() {
    for (seed, split) in seeds(4).into_iter().zip([false, true, false, true]) {
        let scenario =
            Scenario { receivers: 32, split, page_bytes: 192, pages: (4_096, 500), ..Scenario::default() };
        let outcome = complete(&scenario, seed);
        assert!((1.0..1.15).contains(&outcome.payload_ratio), "{outcome:?}");
        assert!(outcome.sender.noticed > 0);
    }
}

#[test]
fn a_fifth_lost_with_copies_and_disorder_is_made_good() {
    for seed in seeds(10) {
        let scenario =
            Scenario { loss: 0.2, copies: 0.1, late: 0.2, receivers: 8, faults: 20, ..Scenario::default() };
        complete(&scenario, seed);
    }
}

#[test]
fn a_slow_receiver_holds_nobody_up_and_gets_all_in_the_end() {
    for seed in seeds(5) {
        let scenario = Scenario {
            receivers: 16,
            pages: (4_096, 0),
            slow: (1, 0.05),
            page_bytes: 1024,
            ..Scenario::default()
        };
        let outcome = complete(&scenario, seed);
        let (slow, others) =
            (outcome.finished[0].unwrap(), outcome.finished[1..].iter().flatten().max().unwrap());
        assert!(*others < slow / 3, "{outcome:?}");
    }
}

#[test]
fn a_page_that_a_guest_waits_for_passes_all_that_is_only_filled_in() {
    for seed in seeds(5) {
        let filling =
            Scenario { receivers: 6, pages: (8_192, 0), page_bytes: 1024, faults: 40, ..Scenario::default() };
        let mut waits = complete(&filling, seed).waits;
        waits.sort_unstable();
        let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        assert!(
            median < Duration::from_millis(25) && longest < Duration::from_millis(200),
            "{median:?} {longest:?}"
        );
    }
}

#[test]
fn where_multicast_is_filtered_everyone_is_served_alone() {
    for seed in seeds(5) {
        let scenario = Scenario { deaf: 4, faults: 30, ahead: 50, loss: 0.05, ..Scenario::default() };
        let outcome = complete(&scenario, seed);
        assert!(outcome.sender.unicast > 0 && outcome.payload_ratio < 8.0, "{outcome:?}");
    }
}

#[test]
fn one_receiver_that_wants_everything_urgently_does_not_starve_the_others() {
    for seed in seeds(3) {
        let scenario =
            Scenario { receivers: 4, fills: false, faults: 400, pages: (4_000, 0), ..Scenario::default() };
        let outcome = complete(&scenario, seed);
        let ends: Vec<_> = outcome.finished.iter().flatten().collect();
        assert!(**ends.iter().max().unwrap() < **ends.iter().min().unwrap() * 3, "{outcome:?}");
    }
}

#[test]
fn pages_that_cannot_be_read_at_times_come_in_the_end() {
    for seed in seeds(10) {
        let scenario = Scenario { loss: 0.1, receivers: 6, unreadable: 0.02, ..Scenario::default() };
        let outcome = complete(&scenario, seed);
        assert!(outcome.sender.unreadable > 0, "{outcome:?}");
    }
}
