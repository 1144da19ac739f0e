//! When each request of a replay is due, and which item it asks for.
//!
//! Pure: no clock, and all chance comes from a seed, so a replay can be
//! repeated request by request. It sends nothing: [`super::player`] does.
//!
//! The window of the trace is squeezed into the duration of the replay; its
//! busiest second then has exactly the peak rate asked for. Work with the
//! cumulative curve `L(t)` (requests due before `t`): it is piecewise linear,
//! so its inverse maps "the k-th request" to a time.

use std::time::Duration;

use super::trace::Curve;

/// The largest replay: its latencies and its schedule stay below 100 MiB.
pub const MAX_REQUESTS: u64 = 4_000_000;

/// How arrivals are spread at a given rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Independent clients: within each second the arrivals of a Poisson
    /// process, given that second's count.
    Poisson,
    /// As far apart as the rate allows.
    Even,
}

/// One request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it is due, since the start of the replay.
    pub at: Duration,
    /// Which item it asks for, from 1; 1 for a tier without items.
    pub item: u32,
}

/// What to play: a curve, squeezed and scaled.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The window of the trace.
    pub curve: Curve,
    /// How long the window takes to play.
    pub duration: Duration,
    /// Requests in the busiest second.
    pub peak: f64,
    /// How arrivals are spread.
    pub arrivals: Arrivals,
    /// How many different items are asked for, all equally often.
    pub items: u32,
    /// Where all chance comes from.
    pub seed: u64,
}

impl Plan {
    /// Every request of the replay in the order in which it is due.
    ///
    /// # Errors
    /// When it would be none, or more than [`MAX_REQUESTS`]; says what to change.
    pub fn schedule(&self) -> Result<Vec<Arrival>, String> {
        let line = Cumulative::of(self);
        let total = line.total().round();
        if total < 1.0 {
            return Err(format!("--peak: {} req/s yields no request at all; raise it", self.peak));
        }
        if total > MAX_REQUESTS as f64 {
            return Err(format!(
                "--duration, --peak: {total} requests are more than the {MAX_REQUESTS} that are kept; lower one"
            ));
        }
        let mut chance = Chance(self.seed);
        let times = match self.arrivals {
            Arrivals::Even => even(&line, total as u64),
            Arrivals::Poisson => poisson(&line, &mut chance),
        };
        Ok(times.into_iter().map(|at| Arrival { at, item: chance.item(self.items) }).collect())
    }

    /// The time of the trace that is played at `at`, in seconds since its origin.
    pub fn trace_seconds(&self, at: f64) -> f64 {
        let span = f64::from(self.curve.to.seconds() - self.curve.from.seconds());
        f64::from(self.curve.from.seconds()) + at / self.duration.as_secs_f64() * span
    }
}

/// Requests due before each bucket boundary, scaled to the peak.
struct Cumulative {
    /// Length of the replay, seconds.
    seconds: f64,
    /// `due[k]`: requests due before the k-th of equally wide buckets ends.
    due: Vec<f64>,
}

impl Cumulative {
    fn of(plan: &Plan) -> Self {
        let mut sum = 0.0;
        let due = plan.curve.counts.iter().map(|count| {
            sum += *count as f64;
            sum
        });
        let mut line = Self { seconds: plan.duration.as_secs_f64(), due: due.collect() };
        let peak = line.whole_seconds().map(|(from, to)| line.before(to) - line.before(from));
        let scale = plan.peak / peak.fold(f64::MIN_POSITIVE, f64::max);
        line.due.iter_mut().for_each(|due| *due *= scale);
        line
    }

    fn total(&self) -> f64 {
        self.due.last().copied().unwrap_or(0.0)
    }

    /// The seconds of the replay; the last one may be cut short.
    fn whole_seconds(&self) -> impl Iterator<Item = (f64, f64)> + use<> {
        let end = self.seconds;
        (0..end.ceil() as u64).map(move |second| (second as f64, end.min((second + 1) as f64)))
    }

    fn width(&self) -> f64 {
        self.seconds / self.due.len() as f64
    }

    fn start_of(&self, bucket: usize) -> f64 {
        if bucket == 0 { 0.0 } else { self.due[bucket - 1] }
    }

    /// L(t).
    fn before(&self, t: f64) -> f64 {
        let bucket = ((t / self.width()) as usize).min(self.due.len() - 1);
        let share = (t / self.width() - bucket as f64).clamp(0.0, 1.0);
        self.start_of(bucket) + share * (self.due[bucket] - self.start_of(bucket))
    }

    /// The inverse of L: when the request number `due` arrives, seconds.
    fn when(&self, due: f64) -> f64 {
        let bucket = self.due.partition_point(|end| *end <= due).min(self.due.len() - 1);
        let inside = self.due[bucket] - self.start_of(bucket);
        let share = if inside > 0.0 { (due - self.start_of(bucket)) / inside } else { 1.0 };
        ((bucket as f64 + share.clamp(0.0, 1.0)) * self.width()).min(self.seconds)
    }
}

fn even(line: &Cumulative, total: u64) -> Vec<Duration> {
    (0..total).map(|k| Duration::from_secs_f64(line.when(k as f64 + 0.5))).collect()
}

fn poisson(line: &Cumulative, chance: &mut Chance) -> Vec<Duration> {
    let mut times = Vec::with_capacity(line.total() as usize + 1);
    for (from, to) in line.whole_seconds() {
        let (first, last) = (line.before(from), line.before(to));
        let count = last.round() - first.round();
        let mut second: Vec<f64> = (0..count as u64)
            .map(|_| line.when(first + chance.unit() * (last - first)).clamp(from, to))
            .collect();
        second.sort_by(f64::total_cmp);
        times.extend(second.into_iter().map(Duration::from_secs_f64));
    }
    times
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): the same numbers for the
/// same seed on every machine and in every version of this program.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform over `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform over `1..=items`.
    fn item(&mut self, items: u32) -> u32 {
        1 + (self.unit() * f64::from(items.max(1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::trace::TraceTime;
    use proptest::prelude::*;

    fn plan(counts: Vec<u64>, seconds: f64, peak: f64, arrivals: Arrivals, seed: u64) -> Plan {
        let to = TraceTime::from_seconds(counts.len() as u32 * 60);
        let curve = Curve { from: TraceTime::from_seconds(0), to, bucket: Duration::from_secs(60), counts };
        Plan { curve, duration: Duration::from_secs_f64(seconds), peak, arrivals, items: 200, seed }
    }

    fn per_second(schedule: &[Arrival], seconds: f64) -> Vec<u64> {
        let mut counts = vec![0; seconds.ceil() as usize];
        for arrival in schedule {
            counts[(arrival.at.as_secs_f64() as usize).min(seconds.ceil() as usize - 1)] += 1;
        }
        counts
    }

    fn curves() -> impl Strategy<Value = Plan> {
        let counts = prop::collection::vec(prop_oneof![1 => Just(0_u64), 4 => 1..200_000_u64], 1..120);
        let arrivals = prop_oneof![Just(Arrivals::Poisson), Just(Arrivals::Even)];
        (counts, 1.0..40.0_f64, 1.0..400.0_f64, arrivals, any::<u64>())
            .prop_filter("some load", |(counts, ..)| counts.iter().any(|count| *count > 0))
            .prop_map(|(counts, seconds, peak, arrivals, seed)| plan(counts, seconds, peak, arrivals, seed))
    }

    proptest! {
        #[test]
        fn a_schedule_is_sorted_within_its_duration_and_the_same_for_the_same_seed(plan in curves()) {
            let Ok(schedule) = plan.schedule() else { return Ok(()) };
            prop_assert!(schedule.is_sorted_by_key(|arrival| arrival.at));
            prop_assert!(schedule.iter().all(|arrival| arrival.at <= plan.duration));
            prop_assert!(schedule.iter().all(|arrival| (1..=200).contains(&arrival.item)));
            prop_assert_eq!(&schedule, &plan.schedule().unwrap());
        }

        #[test]
        fn every_second_has_the_count_of_the_trace_within_rounding(plan in curves()) {
            let Ok(schedule) = plan.schedule() else { return Ok(()) };
            let seconds = plan.duration.as_secs_f64();
            let line = Cumulative::of(&plan);
            let counts = per_second(&schedule, seconds);
            for ((from, to), count) in line.whole_seconds().zip(&counts) {
                let wanted = line.before(to) - line.before(from);
                // A request exactly on a boundary may count for either second.
                prop_assert!((*count as f64 - wanted).abs() <= 2.0, "{count} for {wanted} in {from}..{to}");
            }
            let busiest = line.whole_seconds().map(|(from, to)| line.before(to) - line.before(from)).fold(0.0, f64::max);
            prop_assert!((busiest - plan.peak).abs() < 1e-6, "{busiest}");
            prop_assert!((schedule.len() as f64 - line.total()).abs() <= 1.0);
        }
    }

    #[test]
    fn the_shape_of_the_trace_survives_compression() {
        let schedule = plan(vec![100, 300, 200, 0], 4.0, 300.0, Arrivals::Even, 1).schedule().unwrap();
        assert_eq!(per_second(&schedule, 4.0), [100, 300, 200, 0]);
        let schedule = plan(vec![100, 300, 200, 0], 4.0, 300.0, Arrivals::Poisson, 1).schedule().unwrap();
        assert_eq!(per_second(&schedule, 4.0), [100, 300, 200, 0]);
    }

    #[test]
    fn even_arrivals_keep_their_distance_and_poisson_arrivals_do_not() {
        let gaps = |arrivals| {
            let schedule = plan(vec![60], 10.0, 100.0, arrivals, 7).schedule().unwrap();
            let gaps: Vec<f64> = schedule.windows(2).map(|w| (w[1].at - w[0].at).as_secs_f64()).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            variance.sqrt() / mean
        };
        assert!(gaps(Arrivals::Even) < 0.01);
        let spread = gaps(Arrivals::Poisson);
        assert!((0.8..1.2).contains(&spread), "an exponential's spread is 1, got {spread}");
    }

    #[test]
    fn another_seed_gives_another_schedule() {
        let of = |seed| plan(vec![60, 60], 5.0, 50.0, Arrivals::Poisson, seed).schedule().unwrap();
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_replay_of_nothing_and_one_too_large_are_refused() {
        let refused = |seconds, peak| plan(vec![1], seconds, peak, Arrivals::Even, 1).schedule().unwrap_err();
        assert!(refused(1.0, 0.1).contains("--peak: 0.1 req/s yields no request"));
        assert!(refused(10.0, 400_001.0).contains("more than the 4000000"));
        assert!(plan(vec![1], 10.0, 400_000.0, Arrivals::Even, 1).schedule().is_ok());
    }

    #[test]
    fn the_replay_knows_which_time_of_the_trace_it_plays() {
        let plan = plan(vec![1; 540], 75.0, 300.0, Arrivals::Even, 1);
        assert_eq!(plan.trace_seconds(0.0), 0.0);
        assert_eq!(plan.trace_seconds(75.0), 540.0 * 60.0);
    }
}
