//! The bounds that hold now: `min` and `max`, raised by schedules, forecasts and the
//! fallback, or replaced by a number that someone asked for.

use std::time::Duration;

use super::Scaler;
use crate::reason::Bound;

/// Fewest and most backends, and the rule behind each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) min_by: Bound,
    pub(super) max_by: Bound,
}

/// A size that someone asked for, whatever the load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manual {
    pub(super) backends: u32,
    pub(super) until: Option<Duration>,
}

impl Scaler {
    /// The bounds at a time. `blind` is how long no signal has been fresh, if none is.
    pub(super) fn bounds(&mut self, blind: Option<Duration>, now: Duration) -> Bounds {
        let (min, max) = (self.policy.min, self.policy.max);
        let bounds = Bounds { min, max, min_by: Bound::Min { min }, max_by: Bound::Max { max } };
        if let Some(manual) = self.manual(now) {
            let Bound::Manual { backends, .. } = manual else { return bounds };
            // Nobody can ask for less than min or more than max.
            let backends = backends.clamp(min, max);
            return Bounds { min: backends, max: backends, min_by: manual, max_by: manual };
        }
        let floors = [self.scheduled(now), self.forecast_floor(now), self.fallback(blind)];
        floors.into_iter().flatten().fold(bounds, |bounds, (floor, by)| {
            if floor <= bounds.min { bounds } else { Bounds { min: floor.min(max), min_by: by, ..bounds } }
        })
    }

    /// What was asked for by hand, while it holds.
    fn manual(&mut self, now: Duration) -> Option<Bound> {
        let manual = self.manual?;
        let left = manual.until.map(|until| until.saturating_sub(now));
        if left.is_some_and(|left| left.is_zero()) {
            self.manual = None;
            return None;
        }
        Some(Bound::Manual { backends: manual.backends, left })
    }

    fn scheduled(&mut self, now: Duration) -> Option<(u32, Bound)> {
        if self.policy.schedule.is_empty() {
            return None;
        }
        let unix = self.unix(now)?;
        let floor = self.calendar.floor(&self.policy.schedule, unix)?;
        let left = floor.ends.saturating_sub(unix);
        Some((floor.min, Bound::Scheduled { min: floor.min, left }))
    }

    fn forecast_floor(&mut self, now: Duration) -> Option<(u32, Bound)> {
        let predict = self.policy.predict.filter(|predict| predict.acts)?;
        let min = self.forecast_at(now)?;
        Some((min, Bound::Forecast { min, ahead: predict.buffer }))
    }

    /// What was wanted at this time before, as far ahead as the policy looks.
    pub(super) fn forecast_at(&self, now: Duration) -> Option<u32> {
        let (predict, record) = (self.policy.predict?, self.record.as_ref()?);
        record.forecast(self.unix(now)?, predict.buffer)
    }

    fn fallback(&self, blind: Option<Duration>) -> Option<(u32, Bound)> {
        let (fallback, blind) = (self.policy.fallback?, blind?);
        let min = fallback.backends;
        (blind >= fallback.after).then_some((min, Bound::Fallback { min, blind }))
    }

    /// The time since 1970, if the caller has told it.
    pub(super) fn unix(&self, now: Duration) -> Option<Duration> {
        let (at, unix) = self.wall?;
        Some(unix.saturating_add(now.saturating_sub(at)))
    }
}
