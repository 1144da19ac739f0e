//! Which ready backends answer so badly that they sit out for a while: pure rules.
//!
//!   closed --(errors in a row, or far more errors than the others have)--> open
//!   open --(its time is over)--> half open --(a good probe)--> closed
//!
//! Not here: probes and refused connections, which eject by themselves (see `health.rs`),
//! and the counters (see `circuit.rs`). The rules are those of Envoy's outlier detection.

use std::time::Duration;

use http::StatusCode;

/// When a backend counts as an outlier, and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierSettings {
    /// Answers of 5xx in a row (no answer counts as one) that eject; `None` for any number.
    pub errors: Option<u32>,
    /// Answers of 502, 503 or 504 in a row (no answer counts as one) that eject; `None` for any number.
    pub gateway_errors: Option<u32>,
    /// Time over which success rates are taken, and after which an ejection is forgotten.
    pub interval: Duration,
    /// Time out of service: this, times the ejections so far.
    pub ejection_time: Duration,
    /// Longest time out of service.
    pub max_ejection_time: Duration,
    /// Largest share of the pool that may be out of service, percent; one backend always may, if
    /// another one is left.
    pub max_ejected_percent: u32,
    /// Backends are compared with each other.
    pub success_rate: Option<SuccessRate>,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            errors: Some(5),
            gateway_errors: Some(5),
            interval: Duration::from_secs(10),
            ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejected_percent: 10,
            success_rate: Some(SuccessRate::default()),
        }
    }
}

/// When a backend's success rate is too far below that of the others.
#[derive(Debug, Clone, PartialEq)]
pub struct SuccessRate {
    /// Standard deviations below the mean that a backend must be at to be ejected.
    pub deviations: f64,
    /// Backends with enough requests, without which nothing is compared.
    pub min_backends: u32,
    /// Requests in an interval, without which a backend is not compared.
    pub min_requests: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { deviations: 1.9, min_backends: 5, min_requests: 100 }
    }
}

/// What an exchange says about its backend. One that the client gave up says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer below 500.
    Fine,
    /// 5xx, other than those of a gateway.
    Error,
    /// 502, 503 or 504, or no whole answer.
    Gateway,
}

impl Outcome {
    /// What an answer says.
    pub(super) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            502..=504 => Self::Gateway,
            500..=599 => Self::Error,
            _ => Self::Fine,
        }
    }
}

/// Why a backend was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Too many 5xx in a row.
    Errors,
    /// Too many gateway errors in a row.
    GatewayErrors,
    /// Its success rate is far below that of the others.
    SuccessRate,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 3] = [Reason::Errors, Reason::GatewayErrors, Reason::SuccessRate];

    /// The word for it in the status document and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::GatewayErrors => "gateway_errors",
            Self::SuccessRate => "success_rate",
        }
    }
}

/// Whether one more backend may be taken out of service: never the last one.
pub(super) fn may_eject(ready: usize, ejected: usize, max_percent: u32) -> bool {
    let most = ((ready + ejected) * max_percent as usize / 100).max(1);
    ready > 1 && ejected < most
}

/// Time out of service of the `strikes`-th ejection, counted from 1.
pub(super) fn time_out(strikes: u32, settings: &OutlierSettings) -> Duration {
    settings.ejection_time.saturating_mul(strikes.max(1)).min(settings.max_ejection_time)
}

/// Answers of one backend in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// Below 500.
    pub(super) good: u32,
    /// 5xx, or none.
    pub(super) bad: u32,
}

impl Answers {
    fn total(self) -> u64 {
        u64::from(self.good) + u64::from(self.bad)
    }

    fn rate(self) -> f64 {
        f64::from(self.good) / self.total().max(1) as f64
    }
}

/// Which of several backends are far below the others, as indices.
pub(super) fn far_below(answers: &[Answers], rule: &SuccessRate) -> Vec<usize> {
    let counts = |it: &Answers| it.total() >= u64::from(rule.min_requests.max(1));
    let rates: Vec<f64> = answers.iter().filter(|it| counts(it)).map(|it| it.rate()).collect();
    if rates.is_empty() || rates.len() < rule.min_backends as usize {
        return Vec::new();
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64;
    let bound = mean - rule.deviations * variance.sqrt();
    // Equal rates differ by rounding only.
    let is_below = |it: &Answers| counts(it) && it.rate() < bound - f64::EPSILON;
    answers.iter().enumerate().filter(|(_, it)| is_below(it)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(good: u32, bad: u32) -> Answers {
        Answers { good, bad }
    }

    #[test]
    fn gateway_errors_are_told_from_others() {
        let of = |status| Outcome::of(StatusCode::from_u16(status).unwrap());
        assert_eq!([200, 404, 499].map(of), [Outcome::Fine; 3]);
        assert_eq!([500, 501, 505].map(of), [Outcome::Error; 3]);
        assert_eq!([502, 503, 504].map(of), [Outcome::Gateway; 3]);
    }

    #[test]
    fn one_may_go_however_small_the_share_but_never_the_last() {
        assert!(may_eject(2, 0, 10) && may_eject(9, 0, 0));
        assert!(!may_eject(1, 0, 100) && !may_eject(0, 3, 100) && !may_eject(1, 1, 100));
        assert!(!may_eject(9, 1, 10));
        assert!(may_eject(19, 1, 10) && !may_eject(18, 2, 10));
        assert!(may_eject(5, 5, 100));
    }

    #[test]
    fn each_ejection_is_longer_up_to_a_cap() {
        let settings = OutlierSettings::default();
        let seconds = |strikes| time_out(strikes, &settings).as_secs();
        assert_eq!([0, 1, 2, 9, 10, 11, u32::MAX].map(seconds), [30, 30, 60, 270, 300, 300, 300]);
    }

    #[test]
    fn one_among_five_that_fails_is_far_below() {
        let mut all = [answers(100, 0); 10];
        all[3] = answers(60, 40);
        assert_eq!(far_below(&all, &SuccessRate::default()), [3]);
    }

    #[test]
    fn equals_are_not_outliers_however_bad() {
        assert!(far_below(&[answers(10, 90); 8], &SuccessRate::default()).is_empty());
        assert!(far_below(&[answers(100, 0); 8], &SuccessRate::default()).is_empty());
    }

    #[test]
    fn too_few_backends_or_requests_are_not_compared() {
        let rule = SuccessRate::default();
        let mut four = [answers(100, 0); 4];
        four[0] = answers(0, 100);
        assert!(far_below(&four, &rule).is_empty());
        let mut few = [answers(100, 0); 10];
        few[0] = answers(0, 99);
        assert!(far_below(&few, &rule).is_empty(), "99 requests say too little");
        assert!(far_below(&[], &SuccessRate { min_backends: 0, ..rule }).is_empty());
    }

    #[test]
    fn no_more_than_a_part_can_be_far_below_the_mean() {
        let mut rng = crate::pool::Rng::new(11);
        for _ in 0..200 {
            let all: Vec<Answers> =
                (0..20).map(|_| answers(rng.below(1000) as u32 + 100, rng.below(1000) as u32)).collect();
            // Chebyshev: at most 1/1.9^2 of any numbers are that far from their mean.
            assert!(far_below(&all, &SuccessRate::default()).len() <= 5);
        }
    }
}
