//! A signal made of others by arithmetic: `concurrency + 0.1 * jobs`.

use exmex::{Express, FlatEx};

use crate::signal::Signal;

/// Longest formula, characters.
const LONGEST: usize = 500;

/// A formula over signals. Its names are those of signals.
#[derive(Debug, Clone)]
pub struct Formula {
    text: String,
    /// Large: it holds its parts inline.
    parsed: Box<FlatEx<f64>>,
    inputs: Vec<Signal>,
}

impl PartialEq for Formula {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Formula {
    /// Reads a formula: numbers, names of signals, `+ - * / ^`, parentheses, `min(a, b)`,
    /// `max(a, b)` and functions such as `sqrt(a)`.
    ///
    /// # Errors
    /// What is wrong, to be put after the key.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.chars().count() > LONGEST {
            return Err(format!("must be at most {LONGEST} characters"));
        }
        if !text.is_ascii() {
            return Err("must be plain ASCII".to_owned());
        }
        let parsed: FlatEx<f64> = exmex::parse(text).map_err(|error| format!("is no formula: {error}"))?;
        let inputs: Result<Vec<_>, _> = parsed.var_names().iter().map(|name| Signal::of_name(name)).collect();
        let inputs = inputs.map_err(|why| format!("holds a name that is no signal's: it {why}"))?;
        if inputs.is_empty() {
            return Err("must hold the name of a signal, e.g. concurrency".to_owned());
        }
        Ok(Self { text: text.to_owned(), parsed: Box::new(parsed), inputs })
    }

    /// The signals it holds, each once.
    pub fn inputs(&self) -> &[Signal] {
        &self.inputs
    }

    /// Its value, from those of its inputs in their order; `None` if that is no number.
    pub(crate) fn value(&self, inputs: &[f64]) -> Option<f64> {
        self.parsed.eval(inputs).ok().filter(|value| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_is_computed_from_its_signals() {
        let formula = Formula::new("max(concurrency, 0.5 * jobs) + 1").expect("a formula");
        let names: Vec<_> = formula.inputs().iter().map(|signal| signal.name().to_owned()).collect();
        assert_eq!(names, ["concurrency", "jobs"]);
        assert_eq!(formula.value(&[3.0, 20.0]), Some(11.0));
        assert_eq!(formula.value(&[30.0, 20.0]), Some(31.0));
    }

    #[test]
    fn what_is_no_number_is_no_value() {
        let share = Formula::new("jobs / requests_per_second").expect("a formula");
        assert_eq!(share.value(&[1.0, 0.0]), None);
        assert_eq!(share.value(&[f64::NAN, 1.0]), None);
    }

    #[test]
    fn what_is_no_formula_is_refused_with_the_reason() {
        let long = "1+".repeat(LONGEST) + "jobs";
        for (text, why) in [
            ("", "is no formula"),
            ("jobs +", "is no formula"),
            ("(jobs", "is no formula"),
            ("1 + 2", "must hold the name of a signal"),
            ("Jobs + 1", "holds a name that is no signal's"),
            ("jobs × 2", "must be plain ASCII"),
            (long.as_str(), "must be at most 500 characters"),
        ] {
            let refused = Formula::new(text).expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
