//! W3C trace context: which trace a request is part of, and who sent it on.
//!
//! `traceparent: 00-<trace>-<parent span>-<flags>` (<https://www.w3.org/TR/trace-context/>). What
//! is malformed, or given twice, is taken for nothing.

use std::fmt;

use aws_lc_rs::rand;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The field that names trace and parent.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add to it.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
/// The flags that are passed on: sampled, and that the trace's id is random.
const PASSED_ON: u8 = 3;

/// Whose spans belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(u128);

/// One step of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId(u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SpanId {
    /// A new one; `None` if the system gives no random bytes.
    pub(crate) fn random() -> Option<Self> {
        let mut bytes = [0; 8];
        rand::fill(&mut bytes).ok()?;
        // All zeros stands for none.
        Some(Self(u64::from_be_bytes(bytes).max(1)))
    }
}

/// The part of a trace that a request is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) id: TraceId,
    /// Who sent the request on to us.
    pub(crate) parent: Option<SpanId>,
    /// What it is here.
    pub(crate) span: SpanId,
    flags: u8,
}

impl Trace {
    /// The trace that a request comes with, if its fields are well formed.
    pub(crate) fn told(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let (id, parent, flags) = parse(value.as_bytes())?;
        Some(Self { id, parent: Some(parent), span: SpanId::random()?, flags: flags & PASSED_ON })
    }

    /// A new one, sampled: `share` of all calls are, by the random part of the id.
    pub(crate) fn sampled(share: f64) -> Option<Self> {
        if share <= 0.0 {
            return None;
        }
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).ok()?;
        let id = u128::from_be_bytes(bytes).max(1);
        let random = (id as u64 >> 8) as f64 / (1_u64 << 56) as f64;
        let taken = share >= 1.0 || random < share;
        if !taken {
            return None;
        }
        Some(Self { id: TraceId(id), parent: None, span: SpanId::random()?, flags: PASSED_ON })
    }

    /// Whether anybody wants to see its spans.
    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What is passed on, with a step of ours as the parent.
    pub(crate) fn passed_on(&self, step: SpanId) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("00-{}-{step}-{:02x}", self.id, self.flags)).ok()
    }
}

/// Trace, parent and flags. Later versions may say more behind it.
fn parse(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let (head, rest) = text.split_at_checked(LENGTH)?;
    let version = hex(head.get(..2)?)? as u8;
    let whole = rest.is_empty() || (version != 0 && rest[0] == b'-');
    let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
    if version == 0xff || !whole || !dashes {
        return None;
    }
    let (trace, parent, flags) = (hex(&head[3..35])?, hex(&head[36..52])?, hex(&head[53..])?);
    (trace != 0 && parent != 0).then_some((TraceId(trace), SpanId(parent as u64), flags as u8))
}

/// A number in lower case hexadecimal.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(number << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_passed_on_with_a_new_parent() {
        let headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(PARENT))]);
        let trace = Trace::told(&headers).unwrap();
        assert_eq!(trace.id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent, Some(SpanId(0x00f0_67aa_0ba9_02b7)));
        assert!(trace.is_sampled());
        let passed = trace.passed_on(SpanId(0xab)).unwrap();
        assert_eq!(passed, "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-01");
    }

    #[test]
    fn malformed_ones_are_nothing() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert!(parse(b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        }
        assert_eq!(Trace::told(&headers), None);
    }

    #[test]
    fn none_all_or_about_a_share_is_sampled() {
        assert_eq!(Trace::sampled(0.0), None);
        assert!(Trace::sampled(1.0).is_some_and(|trace| trace.is_sampled()));
        let taken = (0..4000).filter(|_| Trace::sampled(0.25).is_some()).count();
        // Ten standard deviations around the mean.
        assert!((726..1274).contains(&taken), "{taken}");
    }
}
