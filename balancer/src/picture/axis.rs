//! Scales: from seconds, counts and milliseconds to pixels, with round ticks.

/// A value axis of one panel.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    from: f64,
    to: f64,
    log: bool,
    /// Where labels and lines go.
    pub(crate) ticks: Vec<f64>,
}

impl Axis {
    /// From zero to a round number at or above `top`, with about `wanted` ticks.
    pub(crate) fn linear(top: f64, wanted: f64) -> Self {
        let step = round_step(top.max(f64::MIN_POSITIVE), wanted);
        let count = (top / step - 1e-9).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|k| f64::from(k) * step).collect();
        Self { from: 0.0, to: f64::from(count) * step, log: false, ticks }
    }

    /// Whole numbers from zero, with a little room above the top.
    pub(crate) fn count(top: u32) -> Self {
        let step = round_step(f64::from(top).max(1.0), 4.0).max(1.0).ceil();
        let count = (f64::from(top) / step).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|k| f64::from(k) * step).collect();
        Self { from: 0.0, to: f64::from(count) * step + 0.35 * step.min(1.0), log: false, ticks }
    }

    /// Decades that hold all values, at least two.
    pub(crate) fn decades(low: f64, high: f64) -> Self {
        let first = low.max(1e-3).log10().floor() as i32;
        let last = (high.max(1e-3).log10() - 1e-9).ceil() as i32;
        let last = last.max(first + 2);
        let ticks = (first..=last).map(|k| 10_f64.powi(k)).collect();
        Self { from: 10_f64.powi(first), to: 10_f64.powi(last), log: true, ticks }
    }

    /// Twice and five times each decade, for faint lines.
    pub(crate) fn between(&self) -> Vec<f64> {
        let inner = |tick: &f64| [2.0 * tick, 5.0 * tick];
        self.ticks.iter().flat_map(inner).filter(|value| self.log && *value < self.to).collect()
    }

    /// Where a value is: 0 at the bottom, 1 at the top; kept inside.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        share.clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, so that `span` takes about `wanted` steps.
pub(crate) fn round_step(span: f64, wanted: f64) -> f64 {
    let raw = span / wanted;
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw * 0.999);
    factor.unwrap_or(10.0) * power
}

/// Steps of a time axis in seconds: 1, 2, 5, 10, 15, 30 s, then minutes, then hours.
pub(crate) fn time_step(span: f64, wanted: f64) -> f64 {
    const STEPS: [f64; 16] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0,
        10_800.0, 21_600.0,
    ];
    let found = STEPS.into_iter().find(|step| span / step <= wanted);
    found.unwrap_or_else(|| (span / wanted / 86_400.0).ceil() * 86_400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_cover_the_span() {
        assert_eq!(round_step(300.0, 4.0), 100.0);
        assert_eq!(round_step(187.0, 4.0), 50.0);
        assert_eq!(time_step(95.0, 12.0), 10.0);
        assert_eq!(time_step(9.0 * 3600.0, 10.0), 3600.0);
        assert_eq!(time_step(10.0 * 86_400.0, 5.0), 2.0 * 86_400.0);
    }

    #[test]
    fn a_linear_axis_starts_at_zero_and_reaches_its_top() {
        let axis = Axis::linear(301.0, 4.0);
        assert_eq!(axis.ticks, [0.0, 100.0, 200.0, 300.0, 400.0]);
        assert_eq!((axis.share(0.0), axis.share(200.0), axis.share(999.0)), (0.0, 0.5, 1.0));
        assert_eq!(Axis::linear(0.0, 4.0).share(0.0), 0.0);
    }

    #[test]
    fn a_count_axis_has_whole_ticks_only() {
        for top in 0..40 {
            let axis = Axis::count(top);
            assert!(axis.ticks.iter().all(|tick| tick.fract() == 0.0), "{top}: {axis:?}");
            assert!(axis.share(f64::from(top)) <= 1.0 && axis.ticks.len() <= 7, "{top}: {axis:?}");
        }
    }

    #[test]
    fn a_log_axis_has_at_least_two_decades_and_holds_its_values() {
        let axis = Axis::decades(3.0, 40.0);
        assert_eq!(axis.ticks, [1.0, 10.0, 100.0]);
        assert!((axis.share(10.0) - 0.5).abs() < 1e-9);
        assert_eq!(axis.between(), [2.0, 5.0, 20.0, 50.0]);
        assert_eq!(Axis::decades(100.0, 100.0).ticks, [100.0, 1_000.0, 10_000.0]);
    }
}
