//! The scaler's metrics: what it wants, why, and the signals it goes by.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use scaler::{Decision, PoolView, Reading, Scaler};

/// The scaler's metrics; the control loop alone writes them.
pub(super) struct ScalerMeter {
    desired: IntGauge,
    bounds: IntGaugeVec,
    backends: IntGaugeVec,
    decisions: IntCounterVec,
    refused: IntCounter,
    panicking: IntGauge,
    panic_left: Gauge,
    signal: GaugeVec,
    target: GaugeVec,
    age: GaugeVec,
    answers: IntCounterVec,
    forecast: Gauge,
}

impl ScalerMeter {
    /// Registers them.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help)?);
        let float = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, GaugeVec::new(Opts::new(name, help), labels)?)
        };
        let counts = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let decisions = Opts::new(
            "flurry_scaler_decisions_total",
            "Decisions by action, reason, and the rule that bound them; those to do nothing count too.",
        );
        let refused = IntCounter::new(
            "flurry_scaler_refused_clones_total",
            "Clones that were asked for and not granted.",
        )?;
        let left = Gauge::new(
            "flurry_scaler_panic_remaining_seconds",
            "Time until the panic ends if the load stays low; 0 without one.",
        )?;
        let answers = Opts::new(
            "flurry_scaler_queries_total",
            "Questions to a Prometheus for signals of the policy, by what came of them.",
        );
        let forecast = Gauge::new(
            "flurry_scaler_forecast_backends",
            "Backends wanted at this time in former seasons; 0 without a forecast.",
        )?;
        Ok(Self {
            desired: gauge("flurry_scaler_desired_backends", "Backends wanted, the parent included.")?,
            bounds: counts(
                "flurry_scaler_bound_backends",
                "Fewest and most backends now: min and max, raised by schedules and forecasts.",
                &["bound"],
            )?,
            backends: counts(
                "flurry_scaler_backends",
                "Backends as the scaler counts them: ready, starting, retiring, unready.",
                &["state"],
            )?,
            decisions: registered(registry, IntCounterVec::new(decisions, &["action", "reason", "bound"])?)?,
            refused: registered(registry, refused)?,
            panicking: gauge("flurry_scaler_panicking", "1 while load is, or just was, far above capacity.")?,
            panic_left: registered(registry, left)?,
            signal: float(
                "flurry_scaler_signal_value",
                "What a signal says for the whole tier, averaged over the window for growing or for \
                 shrinking; requests, requests per second, or seconds.",
                &["signal", "window"],
            )?,
            target: float(
                "flurry_scaler_signal_target",
                "Target of a signal for each backend, in the unit of the signal.",
                &["signal"],
            )?,
            age: float(
                "flurry_scaler_signal_age_seconds",
                "Age of the newest value of a signal; no series while there never was one.",
                &["signal"],
            )?,
            answers: registered(registry, IntCounterVec::new(answers, &["signal", "outcome"])?)?,
            forecast: registered(registry, forecast)?,
        })
    }

    /// A decision was made.
    pub(super) fn decided(
        &self,
        decision: &Decision,
        pool: &PoolView,
        scaler: &Scaler,
        readings: &[Reading],
    ) {
        let bound = decision.reason.bound().map_or("none", |bound| bound.name());
        let labels = [decision.action.name(), decision.reason.name(), bound];
        self.decisions.with_label_values(&labels).inc();
        self.desired.set(decision.to.into());
        let (min, max) = scaler.held_to();
        self.bounds.with_label_values(&["min"]).set(min.into());
        self.bounds.with_label_values(&["max"]).set(max.into());
        self.forecast.set(scaler.forecast().map_or(0.0, f64::from));
        for (state, count) in [
            ("ready", pool.ready),
            ("starting", pool.starting),
            ("retiring", pool.retiring),
            ("unready", pool.unready),
        ] {
            self.backends.with_label_values(&[state]).set(count.into());
        }
        let left = scaler.panicking_for();
        self.panicking.set(left.is_some().into());
        self.panic_left.set(left.unwrap_or_default().as_secs_f64());
        self.read(readings);
    }

    /// Fewer clones were granted than asked for, or all of them.
    pub(super) fn granted(&self, asked: u32, granted: u32) {
        self.refused.inc_by(asked.saturating_sub(granted).into());
    }

    /// A Prometheus was asked for a signal.
    pub(super) fn answered(&self, signal: &str, taken: bool) {
        let outcome = if taken { "value" } else { "failed" };
        self.answers.with_label_values(&[signal, outcome]).inc();
    }

    fn read(&self, readings: &[Reading]) {
        for reading in readings {
            let name = reading.signal.name();
            self.target.with_label_values(&[name]).set(reading.target);
            for (window, value) in [("grow", reading.value), ("shrink", reading.stable)] {
                if let Some(value) = value {
                    self.signal.with_label_values(&[name, window]).set(value);
                }
            }
            if let Some(age) = reading.age {
                self.age.with_label_values(&[name]).set(age.as_secs_f64());
            }
        }
    }
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{Encoder, TextEncoder};
    use scaler::{Policy, Sample};

    use super::*;

    /// The page after a decision under load, one without samples, and a refusal.
    fn page() -> String {
        let registry = Registry::new();
        let meter = ScalerMeter::new(&registry).unwrap();
        let mut scaler = Scaler::new(Policy::default()).unwrap();
        let pool = PoolView { ready: 1, starting: 0, retiring: 2, unready: 0 };
        let decision = scaler.decide(&pool, Duration::ZERO);
        meter.decided(&decision, &pool, &scaler, &scaler.readings());
        let sample = Sample { in_flight: Some(100.0), ..Sample::default() };
        scaler.observe(&sample, Duration::from_secs(1));
        let decision = scaler.decide(&pool, Duration::from_secs(1));
        meter.decided(&decision, &pool, &scaler, &scaler.readings());
        meter.granted(7, 4);
        meter.answered("jobs", true);
        meter.answered("jobs", false);
        let mut page = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut page).unwrap();
        String::from_utf8(page).unwrap()
    }

    /// `dashboards/test` lets promtool look at the same page.
    #[test]
    fn the_page_tells_what_is_wanted_why_and_by_which_signals() {
        assert_eq!(page(), include_str!("scaler_metrics.prom"));
    }

    #[test]
    fn registering_twice_is_refused() {
        let registry = Registry::new();
        let _first = ScalerMeter::new(&registry).unwrap();
        assert!(ScalerMeter::new(&registry).is_err());
    }
}
