//! Orders to the scaler of a running tier: hold a size, decide again, pause.
//!
//! They come as the query of `POST /v1/scaling` on the admin listener:
//! `backends=5&for=10m`, `auto`, `mode=paused`.

use std::time::Duration;

use scaler::yaml::{parse_duration, show_duration};
use scaler::{Mode, Policy};

/// Longest time that a size is held.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What someone asked of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Hold the tier at a size.
    HoldAt {
        /// Backends, the parent included.
        backends: u32,
        /// For how long; `None` until further notice.
        time: Option<Duration>,
    },
    /// Let the policy decide again.
    Resume,
    /// Act, recommend, or pause.
    Mode(Mode),
}

impl Order {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(query: &str) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let (mut backends, mut time, mut mode, mut auto) = (None, None, None, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = match key {
                "backends" => positive(value).map(|count| backends = Some(count)),
                "for" => held(value).map(|held| time = Some(held)),
                "mode" => mode_of(value).map(|named| mode = Some(named)),
                "auto" => {
                    auto = true;
                    Ok(())
                }
                _ => Err("is not known; known are backends, for, mode, auto".to_owned()),
            };
            wrong.extend(read.err().map(|why| format!("{key}: {why}")));
        }
        let order = match (backends, mode, auto) {
            (Some(backends), None, false) => Some(Self::HoldAt { backends, time }),
            (None, Some(mode), false) if time.is_none() => Some(Self::Mode(mode)),
            (None, None, true) if time.is_none() => Some(Self::Resume),
            _ => None,
        };
        match order {
            Some(order) if wrong.is_empty() => Ok(order),
            None if wrong.is_empty() => {
                Err(vec!["give one of backends (with for, if you like), mode, auto".to_owned()])
            }
            _ => Err(wrong),
        }
    }

    /// The query that [`Order::parse`] reads.
    pub fn query(&self) -> String {
        match self {
            Self::HoldAt { backends, time: None } => format!("backends={backends}"),
            Self::HoldAt { backends, time: Some(time) } => {
                format!("backends={backends}&for={}", show_duration(*time))
            }
            Self::Resume => "auto".to_owned(),
            Self::Mode(mode) => format!("mode={}", mode.name()),
        }
    }
}

/// Answers orders at once, before the loop of the tier has carried them out.
#[derive(Debug, Clone)]
pub struct Desk {
    mode: Mode,
    min: u32,
    max: u32,
}

impl Desk {
    /// For a tier with this policy.
    pub fn new(policy: &Policy) -> Self {
        Self { mode: policy.mode, min: policy.min, max: policy.max }
    }

    /// What is said to an order: that it is taken, and what comes of it.
    ///
    /// # Errors
    /// It would do nothing in the mode that the tier is in.
    pub fn answer(&mut self, order: Order) -> Result<String, String> {
        let taken = format!("taken: {}", order.query());
        match order {
            Order::Mode(mode) => {
                self.mode = mode;
                Ok(taken)
            }
            Order::HoldAt { .. } | Order::Resume if self.mode != Mode::Active => Err(format!(
                "this tier is in mode {}, in which an order for a size does nothing (`flurry scale --mode \
                 active` first)",
                self.mode.name()
            )),
            Order::HoldAt { backends, .. } => {
                let (held, key) = match backends.clamp(self.min, self.max) {
                    held if held < backends => (held, "max"),
                    held => (held, "min"),
                };
                let clamped = (held != backends).then(|| format!("; {key} is {held}, and {held} are held"));
                Ok(taken + &clamped.unwrap_or_default())
            }
            Order::Resume => Ok(taken),
        }
    }
}

fn positive(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| *count >= 1);
    count.ok_or_else(|| format!("must be a number of backends of 1 or more, got `{text}`"))
}

fn held(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    let fits = (Duration::from_secs(1)..=LONGEST).contains(&time);
    fits.then_some(time).ok_or_else(|| format!("must be from 1s to 30d, got `{text}`"))
}

fn mode_of(text: &str) -> Result<Mode, String> {
    let modes = [Mode::Active, Mode::Recommend, Mode::Paused];
    let named = modes.into_iter().find(|mode| mode.name() == text);
    named.ok_or_else(|| format!("must be active, recommend or paused, got `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_read_as_it_is_written() {
        for order in [
            Order::HoldAt { backends: 5, time: None },
            Order::HoldAt { backends: 5, time: Some(Duration::from_secs(90)) },
            Order::Resume,
            Order::Mode(Mode::Paused),
        ] {
            assert_eq!(Order::parse(&order.query()), Ok(order));
        }
    }

    #[test]
    fn an_order_is_told_what_comes_of_it() {
        let mut desk = Desk::new(&Policy { min: 2, max: 3, ..Policy::default() });
        let hold = |backends| Order::HoldAt { backends, time: None };
        assert_eq!(desk.answer(hold(3)), Ok("taken: backends=3".to_owned()));
        assert_eq!(desk.answer(hold(9)), Ok("taken: backends=9; max is 3, and 3 are held".to_owned()));
        assert_eq!(desk.answer(hold(1)), Ok("taken: backends=1; min is 2, and 2 are held".to_owned()));
        assert!(desk.answer(Order::Mode(Mode::Paused)).is_ok());
        for order in [hold(3), Order::Resume] {
            let refused = desk.answer(order).unwrap_err();
            assert!(refused.starts_with("this tier is in mode paused"), "{refused}");
        }
        assert!(desk.answer(Order::Mode(Mode::Active)).is_ok() && desk.answer(hold(3)).is_ok());
    }

    #[test]
    fn everything_wrong_with_an_order_is_said_at_once() {
        let wrong = Order::parse("backends=0&for=soon&mode=off&what=1").unwrap_err();
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        for query in ["", "for=10m", "auto&backends=3", "mode=paused&for=10m"] {
            assert!(Order::parse(query).unwrap_err()[0].starts_with("give one of"), "{query}");
        }
        assert!(
            Order::parse("backends=1&for=31d").unwrap_err()[0].starts_with("for: must be from 1s to 30d")
        );
    }
}
