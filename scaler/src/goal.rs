//! A policy's goals: which signals it goes by, where each comes from, and what is asked of it.

use std::time::Duration;

use crate::formula::Formula;
use crate::history::History;
use crate::policy::{Origin, Policy};
use crate::sample::believable;
use crate::signal::{Measure, Signal};
use crate::step::Step;

/// A signal with a target.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    pub(crate) signal: Signal,
    pub(crate) measure: Measure,
    pub(crate) target: f64,
    /// Up to this value of the whole tier it asks for nothing.
    pub(crate) activation: Option<f64>,
    pub(crate) source: Source,
}

/// A step, with how its signal counts.
#[derive(Debug, Clone)]
pub(crate) struct StepOf {
    pub(crate) step: Step,
    pub(crate) measure: Measure,
    pub(crate) source: Source,
}

/// Where the values of a signal come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A line of the history.
    Line(usize),
    /// Computed from lines of the history.
    Formula(Formula, Vec<usize>),
}

/// Signals of a policy, by line of its history.
#[derive(Debug, Clone)]
pub(crate) struct Goals {
    /// The signals with a target.
    pub(crate) all: Vec<Goal>,
    /// The steps.
    pub(crate) steps: Vec<StepOf>,
    lines: Vec<(Signal, Duration)>,
}

impl Goals {
    /// The goals of a valid policy.
    pub(crate) fn of(policy: &Policy) -> Self {
        let mut goals = Self { all: Vec::new(), steps: Vec::new(), lines: Vec::new() };
        for (signal, target) in policy.targets.all() {
            let source = goals.source(signal, policy);
            let activation = policy.activation.iter().find(|(of, _)| *of == signal).map(|(_, above)| *above);
            goals.all.push(Goal { signal, measure: signal.measure(), target, activation, source });
        }
        for own in &policy.signals {
            let signal = Signal::Custom(own.name);
            let source = goals.source(signal, policy);
            let (measure, activation) = (own.measure, own.activation);
            goals.all.extend(own.target.map(|target| Goal { signal, measure, target, activation, source }));
        }
        for step in &policy.steps {
            let source = goals.source(step.signal, policy);
            let own = policy.signals.iter().find(|own| Signal::Custom(own.name) == step.signal);
            let measure = own.map_or(step.signal.measure(), |own| own.measure);
            goals.steps.push(StepOf { step: *step, measure, source });
        }
        goals
    }

    /// Where a signal comes from; makes lines for what is not there yet.
    fn source(&mut self, signal: Signal, policy: &Policy) -> Source {
        let own = policy.signals.iter().find(|own| Signal::Custom(own.name) == signal);
        match own.map(|own| &own.origin) {
            Some(Origin::Formula(formula)) => {
                let lines = formula.inputs().iter().map(|input| self.line(*input, policy)).collect();
                Source::Formula(formula.clone(), lines)
            }
            Some(Origin::Prometheus { .. }) | None => Source::Line(self.line(signal, policy)),
        }
    }

    fn line(&mut self, signal: Signal, policy: &Policy) -> usize {
        let known = self.lines.iter().position(|(known, _)| *known == signal);
        known.unwrap_or_else(|| {
            self.lines.push((signal, policy.stale_after(signal)));
            self.lines.len() - 1
        })
    }

    /// The line that keeps a signal, if any rule needs it.
    pub(crate) fn line_of(&self, signal: Signal) -> Option<usize> {
        self.lines.iter().position(|(known, _)| *known == signal)
    }

    /// For each line, the age from which on it says nothing.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        self.lines.iter().map(|(_, gap)| *gap).collect()
    }

    fn lines<'a>(&'a self, source: &'a Source) -> impl Iterator<Item = usize> + 'a {
        let (one, many) = match source {
            Source::Line(line) => (Some(*line), &[][..]),
            Source::Formula(_, lines) => (None, lines.as_slice()),
        };
        one.into_iter().chain(many.iter().copied())
    }

    /// The mean over a window that ends now; `None` if there never was a value.
    pub(crate) fn mean(
        &self,
        source: &Source,
        history: &History,
        window: Duration,
        now: Duration,
    ) -> Option<f64> {
        match source {
            Source::Line(line) => history.mean(*line, window, now),
            Source::Formula(formula, lines) => {
                let inputs: Option<Vec<f64>> =
                    lines.iter().map(|line| history.mean(*line, window, now)).collect();
                formula.value(&inputs?).filter(|value| believable(*value))
            }
        }
    }

    /// How old the newest value is; of a formula, that of its oldest input.
    pub(crate) fn age(&self, source: &Source, history: &History, now: Duration) -> Option<Duration> {
        let ages: Option<Vec<Duration>> = self.lines(source).map(|line| history.age(line, now)).collect();
        ages?.into_iter().max()
    }

    /// Whether every input is known and not stale.
    pub(crate) fn is_fresh(&self, source: &Source, history: &History, now: Duration) -> bool {
        let fresh = |line: usize| history.age(line, now).is_some_and(|age| age <= self.lines[line].1);
        self.lines(source).all(fresh)
    }

    /// How long it has been seen without a gap.
    pub(crate) fn seen_for(&self, source: &Source, history: &History, now: Duration) -> Duration {
        self.lines(source).map(|line| history.seen_for(line, now)).min().unwrap_or_default()
    }
}
