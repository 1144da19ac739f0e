//! Why a decision is what it is: the inputs, and the rule that bound it.
//!
//! Every variant displays as one plain sentence without a full stop (`reason/words.rs`).

mod words;

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::policy::Direction;
use crate::signal::Signal;

/// The signal that spoke for the most backends, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Driver {
    /// The signal.
    pub signal: Signal,
    /// Its mean over the window, for the whole tier (seconds for latency).
    pub value: f64,
    /// The window.
    #[serde(serialize_with = "seconds")]
    pub window: Duration,
    /// Its target per backend (seconds for latency).
    pub target: f64,
    /// Backends it wants, before any limit.
    pub wants: u32,
    /// How it comes to that number.
    pub way: Way,
}

/// How a signal comes to the number of backends it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// By its target.
    Target,
    /// By how far it is beyond its target; it guards, and counts no load.
    Guard,
    /// It keeps what there is: the last change does not show in it yet.
    Settling,
    /// By its target, but no backend is ready, and so no more than the cap.
    FromZero,
    /// By a step above its threshold, which stands as the target.
    StepUp {
        /// Backends it adds.
        by: u32,
    },
    /// By a step below its threshold, which stands as the target.
    StepDown {
        /// Backends it removes.
        by: u32,
    },
    /// It is beyond no threshold of its steps.
    BetweenSteps,
}

/// A rule that kept a decision from going as far as the load asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The policy's `min`.
    Min {
        /// Fewest backends.
        min: u32,
    },
    /// The policy's `max`.
    Max {
        /// Most backends.
        max: u32,
    },
    /// The rate of `scale_up` or `scale_down`.
    Rate {
        /// Which of them.
        direction: Direction,
        /// Backends that may yet move in this period.
        room: u32,
        /// The period.
        #[serde(serialize_with = "seconds")]
        per: Duration,
    },
    /// As many clones are on their way as may be at once.
    Surge {
        /// Clones on their way.
        starting: u32,
        /// Most of them at once.
        surge: u32,
    },
    /// Fewer clones were granted than asked for; asking again comes later.
    Refused {
        /// Time until asking again.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// Clones were not born; asking again comes later each time.
    NotBorn {
        /// Tries in a row that failed.
        tries: u32,
        /// Time until asking again.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// Clones that do not answer take up room.
    Unready {
        /// How many.
        unready: u32,
    },
    /// More backends were wanted a while ago, and might be again.
    Stabilised {
        /// Most backends wanted within the window.
        highest: u32,
        /// The window.
        #[serde(serialize_with = "seconds")]
        window: Duration,
    },
    /// Fewer backends were wanted a while ago, and might be again.
    StabilisedUp {
        /// Fewest backends wanted within the window.
        lowest: u32,
        /// The window.
        #[serde(serialize_with = "seconds")]
        window: Duration,
    },
    /// The tier changed a moment ago.
    CoolDown {
        /// The direction that waits.
        direction: Direction,
        /// Time until it may go on.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// A floor by the calendar.
    Scheduled {
        /// Fewest backends.
        min: u32,
        /// Time until the floor is gone.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// A floor by what was wanted at this time before.
    Forecast {
        /// Fewest backends.
        min: u32,
        /// How far the forecast looks ahead.
        #[serde(serialize_with = "seconds")]
        ahead: Duration,
    },
    /// A floor because nothing is known of the load.
    Fallback {
        /// Fewest backends.
        min: u32,
        /// Time without any signal.
        #[serde(serialize_with = "seconds")]
        blind: Duration,
    },
    /// A size that someone asked for.
    Manual {
        /// Backends asked for.
        backends: u32,
        /// Time until the policy decides again; `None` until it is told to.
        #[serde(serialize_with = "maybe_seconds")]
        left: Option<Duration>,
    },
    /// Only ready backends can leave, and `min` of them stay.
    FewReady {
        /// Backends that are ready.
        ready: u32,
    },
    /// The policy switched this direction off.
    Disabled {
        /// Which.
        direction: Direction,
    },
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// No sample has come since the start.
    NoSamplesYet,
    /// The newest sample says nothing about now.
    Stale {
        /// Its age.
        #[serde(serialize_with = "seconds")]
        age: Duration,
        /// The age from which on samples are stale.
        #[serde(serialize_with = "seconds")]
        limit: Duration,
    },
    /// There are as many backends as the load wants.
    Enough(Driver),
    /// The load misses the target by less than is worth a change.
    WithinTolerance(Driver),
    /// It would shrink, but the load was far above capacity a moment ago.
    Panicking {
        /// What it would shrink to.
        driver: Driver,
        /// Time until the panic is over if the load stays low.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// It would shrink, but has not watched for a full window yet.
    FirstWindow {
        /// What it would shrink to.
        driver: Driver,
        /// Time watched without a gap.
        #[serde(serialize_with = "seconds")]
        seen: Duration,
        /// Time to watch before shrinking.
        #[serde(serialize_with = "seconds")]
        needed: Duration,
    },
    /// It would shrink, but a signal of the policy is missing.
    SignalMissing {
        /// What it would shrink to.
        driver: Driver,
        /// The signal without a fresh value.
        missing: Signal,
    },
    /// It would grow or shrink, but a limit leaves no room.
    Limited {
        /// What it would grow or shrink to.
        driver: Driver,
        /// The limit.
        bound: Bound,
    },
    /// The policy only recommends; this is what it would do.
    Recommends {
        /// The signal that decided, if it was one.
        driver: Option<Driver>,
        /// The limit.
        bound: Option<Bound>,
    },
    /// Scaling is paused.
    Paused,
    /// It is below `min` or above `max`, and a limit leaves no room to change that now.
    OutOfBounds {
        /// The bound that is missed.
        missed: Bound,
        /// The limit.
        bound: Bound,
    },
}

/// Why a decision is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The load wants another number of backends.
    Load {
        /// The signal that decided.
        driver: Driver,
        /// The limit that kept it from going all the way.
        bound: Option<Bound>,
    },
    /// The load is far above capacity.
    Panic {
        /// The signal that decided.
        driver: Driver,
        /// The limit that kept it from going all the way.
        bound: Option<Bound>,
    },
    /// There are fewer backends than `min` or more than `max`.
    OutOfBounds {
        /// The bound that is missed.
        missed: Bound,
        /// The limit that kept it from going all the way.
        bound: Option<Bound>,
    },
    /// Nothing is done.
    Hold(HoldReason),
}

pub(crate) fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn maybe_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

impl Reason {
    /// The same, of a policy that only recommends.
    pub(crate) fn recommended(self) -> Self {
        let (driver, bound) = match self {
            Self::Load { driver, bound } | Self::Panic { driver, bound } => (Some(driver), bound),
            Self::OutOfBounds { missed, .. } => (None, Some(missed)),
            Self::Hold(_) => return self,
        };
        Self::Hold(HoldReason::Recommends { driver, bound })
    }
}
