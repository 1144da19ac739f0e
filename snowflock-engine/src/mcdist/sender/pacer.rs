//! How fast a sender sends: flow control by weighted receive rates.
//!
//! Loss that does not depend on the rate (a bad cable) must not slow anyone
//! down, and loss that does (a full queue) must. So the share of datagrams that
//! come is compared with the best share seen lately:
//!
//!   close to the best  -> the rate is not the problem: faster
//!   below the best     -> congestion: nine tenths of what comes through

use std::time::Duration;

use crate::mcdist::message::Received;

/// Datagrams that a report must be about to say anything about loss.
const FEWEST: u64 = 32;
/// The share may stay this much below the best before it counts as congestion.
const TOLERANCE: f64 = 0.03;
/// The best share is forgotten slowly, or one lucky moment would count for ever.
const FORGET: f64 = 0.002;
/// Urgent pages may be sent ahead of the rate by this many bytes.
const URGENT_DEBT: f64 = 64.0 * 4096.0;
/// The rate may be unused this long and still be caught up.
const BURST: Duration = Duration::from_millis(2);

/// Bounds of the rate, in bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// At the start.
    pub initial: f64,
    /// Even if nothing seems to come through.
    pub least: f64,
    /// Even if everything comes through.
    pub most: f64,
}

impl Default for Rates {
    fn default() -> Self {
        // From 400 Mbit/s; ten times as much is reached after six intervals. At least 8 Mbit/s, at most 80 Gbit/s.
        Self { initial: 50e6, least: 1e6, most: 10e9 }
    }
}

/// How one receiver receives on one channel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reception {
    base: Received,
    /// Share of datagrams that come, 0 to 1; `None` until enough were sent.
    share: Option<f64>,
    rate: f64,
    /// Pages it misses.
    weight: f64,
}

impl Reception {
    /// A report: what came, bytes a second, pages missing.
    pub(super) fn report(&mut self, now: Received, rate: u64, missing: u32) {
        (self.rate, self.weight) = (rate as f64, f64::from(missing));
        let sent = now.high.saturating_sub(self.base.high);
        let came = now.count.saturating_sub(self.base.count);
        if sent >= FEWEST {
            self.share = Some((came as f64 / sent as f64).min(1.0));
            self.base = now;
        }
    }
}

/// The rate, and what has been sent ahead of it.
#[derive(Debug)]
pub(super) struct Pacer {
    rates: Rates,
    rate: f64,
    /// Bytes that may be sent; negative after an urgent page.
    allowance: f64,
    at: Duration,
    best: f64,
    has_congested: bool,
    /// Bytes sent since the last adjustment.
    sent: f64,
    adjusted: Duration,
    hold_until: Duration,
}

impl Pacer {
    pub(super) fn new(rates: Rates) -> Self {
        Self {
            rates,
            rate: rates.initial,
            allowance: 0.0,
            at: Duration::ZERO,
            best: 0.0,
            has_congested: false,
            sent: 0.0,
            adjusted: Duration::ZERO,
            hold_until: Duration::ZERO,
        }
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Whether a page may leave now.
    pub(super) fn allows(&mut self, now: Duration, is_urgent: bool) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let most = (self.rate * BURST.as_secs_f64()).max(64.0 * 1024.0);
        self.allowance = (self.allowance + passed * self.rate).min(most);
        self.allowance > if is_urgent { -URGENT_DEBT } else { 0.0 }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.allowance -= bytes as f64;
        self.sent += bytes as f64;
    }

    /// When a page may leave that may not now.
    pub(super) fn next(&self) -> Duration {
        let wait = (1.0 - self.allowance).max(0.0) / self.rate;
        self.at + Duration::from_secs_f64(wait.min(1.0))
    }

    /// Once per interval of reports: what the receivers say becomes a rate.
    pub(super) fn adjust(&mut self, now: Duration, every: Duration, told: &[Told]) {
        let passed = now.saturating_sub(self.adjusted);
        if passed < every {
            return;
        }
        let was_used = self.sent >= 0.5 * self.rate * passed.as_secs_f64();
        (self.sent, self.adjusted) = (0.0, now);
        let Some((share, rate)) = weighted(told) else { return };
        self.best = (self.best - FORGET).max(share);
        if share < self.best - TOLERANCE {
            if now >= self.hold_until {
                let through = rate / self.best.max(0.1);
                self.rate = (0.9 * through.min(self.rate)).max(0.5 * self.rate);
                (self.has_congested, self.hold_until) = (true, now + 3 * every);
            }
        } else if was_used && now >= self.hold_until {
            self.rate *= if self.has_congested { 1.05 } else { 1.5 };
        }
        self.rate = self.rate.clamp(self.rates.least, self.rates.most);
    }
}

/// What one receiver told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) share: f64,
    rate: f64,
    weight: f64,
}

impl Reception {
    /// What was told since the last call: each report counts once.
    pub(super) fn take(&mut self) -> Option<Told> {
        let share = self.share.take()?;
        Some(Told { share, rate: self.rate, weight: self.weight + 1.0 })
    }
}

/// Who gets less than this is too slow for the others, and is served at its own pace: half of what the
/// median receiver gets.
pub(super) fn straggles_below(told: &[Told]) -> f64 {
    let mut shares: Vec<f64> = told.iter().map(|told| told.share).collect();
    shares.sort_unstable_by(f64::total_cmp);
    shares.get(shares.len() / 2).map_or(0.0, |median| median / 2.0)
}

/// Averages: the share that comes, and the rate.
fn weighted(told: &[Told]) -> Option<(f64, f64)> {
    let weights: f64 = told.iter().map(|told| told.weight).sum();
    let mean =
        |pick: fn(&Told) -> f64| told.iter().map(|told| told.weight * pick(told)).sum::<f64>() / weights;
    (weights > 0.0).then(|| (mean(|told| told.share), mean(|told| told.rate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(10);

    /// Plays intervals in which the sender uses its rate, and this is what becomes of it.
    fn play(pacer: &mut Pacer, intervals: u32, comes: impl Fn(f64) -> f64) {
        let mut reception = Reception::default();
        let mut total = Received::default();
        let mut now = pacer.adjusted;
        for _ in 0..intervals {
            now += EVERY;
            let sent = pacer.rate * EVERY.as_secs_f64();
            let share = comes(pacer.rate);
            pacer.allows(now, false);
            pacer.sent(sent as usize);
            total.high += 1_000;
            total.count += (1_000.0 * share) as u64;
            reception.report(total, (pacer.rate * share) as u64, 9);
            pacer.adjust(now, EVERY, &[reception.take().unwrap()]);
        }
    }

    #[test]
    fn it_finds_the_capacity_of_the_way_and_stays_near_it() {
        let mut pacer = Pacer::new(Rates::default());
        let capacity = 125e6;
        play(&mut pacer, 40, |rate| (capacity / rate).min(1.0));
        for _ in 0..50 {
            play(&mut pacer, 1, |rate| (capacity / rate).min(1.0));
            assert!((0.75..1.16).contains(&(pacer.rate / capacity)), "{}", pacer.rate);
        }
    }

    #[test]
    fn loss_that_does_not_depend_on_the_rate_slows_nobody_down() {
        let mut pacer = Pacer::new(Rates::default());
        play(&mut pacer, 60, |_| 0.8);
        assert!(pacer.rate > 1e9, "{}", pacer.rate);
    }

    #[test]
    fn it_keeps_its_bounds() {
        let mut pacer = Pacer::new(Rates { most: 30e6, ..Rates::default() });
        play(&mut pacer, 20, |_| 1.0);
        assert_eq!(pacer.rate, 30e6);
        play(&mut pacer, 400, |rate| (1e3 / rate).min(1.0));
        assert!(pacer.rate >= 1e6 && pacer.rate < 2e6, "{}", pacer.rate);
    }

    #[test]
    fn an_idle_sender_does_not_grow_its_rate() {
        let mut pacer = Pacer::new(Rates::default());
        let mut reception = Reception::default();
        reception.report(Received { high: 99, count: 99 }, 1, 9);
        pacer.adjust(EVERY, EVERY, &[reception.take().unwrap()]);
        assert_eq!(pacer.rate, Rates::default().initial);
        assert!(reception.take().is_none(), "a report counts once");
    }

    #[test]
    fn who_misses_more_counts_more_and_who_gets_next_to_nothing_straggles() {
        let told = |share, weight| Told { share, rate: 100.0 * share, weight };
        assert_eq!(weighted(&[told(1.0, 3.0), told(0.5, 1.0)]), Some((0.875, 87.5)));
        assert_eq!(weighted(&[]), None);
        assert_eq!(straggles_below(&[told(1.0, 1.0), told(0.1, 9.0), told(0.9, 1.0)]), 0.45);
        assert_eq!(straggles_below(&[]), 0.0);
    }

    #[test]
    fn a_page_waits_for_its_turn_and_an_urgent_one_may_go_into_debt() {
        let mut pacer = Pacer::new(Rates::default());
        let now = Duration::from_secs(1);
        while pacer.allows(now, false) {
            pacer.sent(4096);
        }
        assert!(pacer.allows(now, true) && pacer.next() > now);
        assert!(pacer.allows(pacer.next() + Duration::from_micros(1), false));
        let mut urgent = 0;
        while pacer.allows(now, true) {
            pacer.sent(4096);
            urgent += 1;
        }
        assert!((60..200).contains(&urgent), "{urgent}");
    }
}
