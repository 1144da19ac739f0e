//! The life of a clone.
//!
//! ```text
//!   promised -> seeded -> running -> joined -> ready -> retiring -> gone
//!        \________\_________\_________\_________\_________\-----> failed(why)
//! ```
//!
//! The owner of the engine is the only writer. Nothing ever goes back: a clone
//! that is wanted again is another clone.

use std::fmt;

/// Where a clone is in its life, and what ends each state.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifeState {
    /// Granted by a ticket. Ends when a shell holds memory, disk and device state of the checkpoint.
    Promised,
    /// All there, paused. Ends when its vCPUs run.
    Seeded,
    /// Running under its parent's identity. Ends when its agent has taken its own.
    Running,
    /// It has its own identity. Ends when whoever serves requests says that it answers.
    Joined,
    /// It serves. Ends with the wish to end it.
    Ready,
    /// It gets no new requests. Ends with `sf_exit`.
    Retiring,
    /// It has ended and left nothing behind.
    Gone,
    /// It could not go on, for this reason, and left nothing behind.
    Failed(String),
}

impl LifeState {
    /// Whether it still has, or will have, a VM.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self, Self::Gone | Self::Failed(_))
    }

    /// Whether it has an identity of its own.
    #[must_use]
    pub fn has_identity(&self) -> bool {
        matches!(self, Self::Joined | Self::Ready | Self::Retiring)
    }

    /// Whether it is on its way to readiness.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.rank() < Self::Ready.rank()
    }

    /// Whether the life cycle allows this step.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        self.is_alive() && (next.rank() > self.rank())
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Promised => 0,
            Self::Seeded => 1,
            Self::Running => 2,
            Self::Joined => 3,
            Self::Ready => 4,
            Self::Retiring => 5,
            Self::Gone => 6,
            Self::Failed(_) => 7,
        }
    }
}

impl fmt::Display for LifeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promised => "promised",
            Self::Seeded => "seeded",
            Self::Running => "running",
            Self::Joined => "joined",
            Self::Ready => "ready",
            Self::Retiring => "retiring",
            Self::Gone => "gone",
            Self::Failed(_) => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_goes_forward_only() {
        let path = [
            LifeState::Promised,
            LifeState::Seeded,
            LifeState::Running,
            LifeState::Joined,
            LifeState::Ready,
            LifeState::Retiring,
            LifeState::Gone,
        ];
        for (i, from) in path.iter().enumerate() {
            for (j, to) in path.iter().enumerate() {
                assert_eq!(from.may_become(to), j > i && from.is_alive(), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn every_living_clone_may_fail_and_no_dead_one_comes_back() {
        let failed = LifeState::Failed("QEMU ended".into());
        assert!(LifeState::Ready.may_become(&failed));
        assert!(!LifeState::Gone.may_become(&failed));
        assert!(!failed.may_become(&LifeState::Ready));
    }
}
