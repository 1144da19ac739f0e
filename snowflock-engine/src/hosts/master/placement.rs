//! Which host gets how many clones of a ticket.

use std::collections::BTreeMap;

use crate::hosts::ids::Name;

/// Spreads `wanted` clones over hosts with so much room each: every next clone goes where most room is
/// left, by name among equals. All that fit are placed; a host that gets none is not mentioned.
#[must_use]
pub fn spread(wanted: u32, room: &BTreeMap<Name, u32>) -> BTreeMap<Name, u32> {
    let mut left = room.clone();
    let mut placed = BTreeMap::new();
    for _ in 0..wanted {
        // max_by_key takes the last of equals.
        let Some((host, room)) = left.iter_mut().rev().max_by_key(|(_, room)| **room) else { break };
        if *room == 0 {
            break;
        }
        *room -= 1;
        *placed.entry(host.clone()).or_insert(0) += 1;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(room: &[u32]) -> BTreeMap<Name, u32> {
        let name = |i: usize| format!("h{i}").parse().unwrap();
        room.iter().enumerate().map(|(i, room)| (name(i), *room)).collect()
    }

    #[test]
    fn clones_go_where_most_room_is_left_and_by_name_among_equals() {
        let placed = |wanted, room: &[u32]| {
            let placed = spread(wanted, &hosts(room));
            hosts(room).keys().map(|host| placed.get(host).copied().unwrap_or(0)).collect::<Vec<_>>()
        };
        assert_eq!(placed(4, &[8, 8]), [2, 2]);
        assert_eq!(placed(3, &[8, 8]), [2, 1]);
        assert_eq!(placed(3, &[2, 5, 0]), [0, 3, 0]);
        assert_eq!(placed(9, &[2, 1]), [2, 1]);
        assert!(placed(9, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn all_that_fit_are_placed_and_no_host_gets_more_than_it_has_room_for(
            wanted in 0u32..60, room in prop::collection::vec(0u32..20, 0..6),
        ) {
            let room = hosts(&room);
            let placed = spread(wanted, &room);
            prop_assert_eq!(placed.values().sum::<u32>(), wanted.min(room.values().sum()));
            prop_assert!(placed.iter().all(|(host, count)| *count > 0 && *count <= room[host]));
        }
    }
}
