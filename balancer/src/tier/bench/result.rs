//! The figures of a benchmark beside their goals.

use serde::Serialize;

/// Which way is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Its unit; `x` for a ratio.
    pub unit: &'static str,
    /// Which way is up.
    pub better: Better,
    /// The goal that must be met, if there is one.
    pub must: Option<f64>,
    /// The goal aimed at, if there is one.
    pub aim: Option<f64>,
    /// What a ratio is against.
    pub compared_with: Option<String>,
}

impl Measurement {
    /// A figure of which less is better.
    pub fn lower(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let what = what.into();
        Self { what, value, unit, better: Better::Lower, must: None, aim: None, compared_with: None }
    }

    /// A figure of which more is better.
    pub fn higher(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { better: Better::Higher, ..Self::lower(what, value, unit) }
    }

    /// With its goals.
    #[must_use]
    pub fn goals(self, must: f64, aim: f64) -> Self {
        Self { must: Some(must), aim: Some(aim), ..self }
    }

    /// With what it is compared with.
    #[must_use]
    pub fn against(self, other: impl Into<String>) -> Self {
        Self { compared_with: Some(other.into()), ..self }
    }

    /// `aim`, `must` or `missed`; empty without goals.
    pub fn verdict(&self) -> &'static str {
        let reaches = |goal: f64| match self.better {
            Better::Lower => self.value <= goal,
            Better::Higher => self.value >= goal,
        };
        match (self.must, self.aim) {
            (_, Some(aim)) if reaches(aim) => "aim",
            (Some(must), _) if reaches(must) => "must",
            (Some(_), _) => "missed",
            _ => "",
        }
    }
}

/// The figures as a table for a terminal.
pub fn table(measurements: &[Measurement]) -> String {
    let number = |value: f64| match value.abs() {
        v if v.is_nan() => "-".to_owned(),
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    let goal = |goal: Option<f64>| goal.map_or_else(|| "-".to_owned(), number);
    let wide = measurements.iter().map(|it| it.what.len()).max().unwrap_or(0);
    let mut text =
        format!("{:wide$}  {:>10} {:5} {:>8} {:>8}  reached\n", "what", "measured", "unit", "must", "aim");
    for it in measurements {
        let (value, must, aim) = (number(it.value), goal(it.must), goal(it.aim));
        let line =
            format!("{:wide$}  {value:>10} {:5} {must:>8} {aim:>8}  {}", it.what, it.unit, it.verdict());
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_knows_which_way_is_up() {
        let pause = |ms| Measurement::lower("pause", ms, "ms").goals(20.0, 10.0);
        assert_eq!(
            [pause(9.0).verdict(), pause(20.0).verdict(), pause(21.0).verdict()],
            ["aim", "must", "missed"]
        );
        let ratio = |x| Measurement::higher("boot", x, "x").goals(20.0, 50.0).against("a fork");
        assert_eq!(
            [ratio(60.0).verdict(), ratio(30.0).verdict(), ratio(3.0).verdict()],
            ["aim", "must", "missed"]
        );
        assert_eq!(Measurement::lower("pages", 1.0, "").verdict(), "");
    }

    #[test]
    fn every_figure_has_its_line_beside_its_goals() {
        let text = table(&[Measurement::lower("pause", 12.34, "ms").goals(20.0, 10.0)]);
        assert!(
            text.lines().nth(1).is_some_and(|line| line.contains("12.3") && line.ends_with("must")),
            "{text}"
        );
    }
}
