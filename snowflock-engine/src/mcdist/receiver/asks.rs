//! Pages that a guest waits for, and when to ask for each again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::mcdist::geometry::Place;
use crate::mcdist::message::Urgent;

/// Before any answer was measured.
const FIRST_TIMEOUT: Duration = Duration::from_millis(10);
/// Not even the nearest sender is asked again sooner: it may be busy for that long.
const LEAST_TIMEOUT: Duration = Duration::from_millis(3);
/// Doubling ends here.
const MOST_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
struct Ask {
    since: Duration,
    due: Duration,
    tries: u32,
}

/// Pages that were asked for and have not come.
#[derive(Debug, Default)]
pub(super) struct Asks {
    open: HashMap<Place, Ask>,
    due: BTreeSet<(Duration, Place)>,
    /// Smoothed time until an answer.
    answer: Option<Duration>,
}

impl Asks {
    /// Asks for a page from now on; `false` if that is so already.
    pub(super) fn open(&mut self, now: Duration, place: Place) -> bool {
        if self.open.contains_key(&place) {
            return false;
        }
        self.open.insert(place, Ask { since: now, due: now, tries: 0 });
        self.due.insert((now, place));
        true
    }

    /// The page has come, or is not wanted any more. Returns whether it had been asked for.
    pub(super) fn close(&mut self, now: Duration, place: Place) -> bool {
        let Some(ask) = self.open.remove(&place) else { return false };
        self.due.remove(&(ask.due, place));
        // The answer to a repeated question tells no time (Karn).
        if ask.tries == 1 {
            let took = now.saturating_sub(ask.since);
            self.answer = Some(self.answer.map_or(took, |mean| (mean * 7 + took) / 8));
        }
        true
    }

    pub(super) fn is_open(&self, place: Place) -> bool {
        self.open.contains_key(&place)
    }

    /// The questions that are due, at most so many; each counts as asked now.
    pub(super) fn take_due(&mut self, now: Duration, most: usize) -> Vec<Urgent> {
        let mut taken = Vec::new();
        while let Some((due, place)) = self.due.first().copied()
            && due <= now
            && taken.len() < most
        {
            self.due.pop_first();
            let timeout = self.timeout();
            if let Some(ask) = self.open.get_mut(&place) {
                taken.push(Urgent { place, again: ask.tries > 0 });
                ask.due = now + (timeout * (1 << ask.tries.min(8))).min(MOST_TIMEOUT);
                ask.tries += 1;
                self.due.insert((ask.due, place));
            }
        }
        taken
    }

    /// The other end is a new one: all questions are due.
    pub(super) fn restart(&mut self, now: Duration) {
        self.due.clear();
        for (place, ask) in &mut self.open {
            (ask.due, ask.tries) = (now, 0);
            self.due.insert((now, *place));
        }
    }

    fn timeout(&self) -> Duration {
        self.answer.map_or(FIRST_TIMEOUT, |mean| (mean * 4).clamp(LEAST_TIMEOUT, MOST_TIMEOUT))
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// For how long the oldest question has been open.
    pub(super) fn oldest(&self, now: Duration) -> Option<Duration> {
        self.open.values().map(|ask| now.saturating_sub(ask.since)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Place = Place(7);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_page_that_never_arrives_is_asked_for_again_ever_less_often() {
        let mut asks = Asks::default();
        assert!(asks.open(ms(0), PAGE) && !asks.open(ms(0), PAGE));
        let mut times = Vec::new();
        while times.len() < 9 {
            let at = asks.next().unwrap();
            let asked = asks.take_due(at, 9);
            assert_eq!(asked, [Urgent { place: PAGE, again: !times.is_empty() }]);
            times.push(at);
        }
        assert_eq!(times, [0, 10, 30, 70, 150, 310, 630, 1130, 1630].map(ms));
        assert_eq!(asks.oldest(ms(2_000)), Some(ms(2_000)));
    }

    #[test]
    fn the_timeout_follows_measured_answers() {
        let mut asks = Asks::default();
        for page in (0..50).map(Place) {
            asks.open(ms(0), page);
            asks.take_due(ms(0), 1);
            assert!(asks.close(ms(40), page));
        }
        asks.open(ms(0), PAGE);
        asks.take_due(ms(0), 1);
        assert_eq!(asks.next(), Some(ms(160)));
        // The answer to a repeated question says nothing.
        asks.take_due(ms(160), 1);
        asks.close(ms(161), PAGE);
        assert_eq!(asks.timeout(), ms(160));
        assert!(!asks.close(ms(161), PAGE), "it is closed");
    }

    #[test]
    fn no_more_are_asked_at_once_than_fit_and_none_is_forgotten() {
        let mut asks = Asks::default();
        assert!((0..5).all(|page| asks.open(ms(0), Place(page))));
        assert_eq!((asks.take_due(ms(0), 3).len(), asks.take_due(ms(0), 3).len(), asks.len()), (3, 2, 5));
        asks.restart(ms(1));
        assert_eq!(asks.take_due(ms(1), 9).len(), 5);
    }
}
