//! How busy the guests' processors are: what their VMs' processes used of them, as this
//! host's kernel counts it (`utime` and `stime` of `/proc/PID/stat`, man 5 proc).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Ticks that Linux tells programs per second (`USER_HZ`), whatever the kernel's own are.
const TICKS_PER_SECOND: f64 = 100.0;
/// Shorter than this the kernel's ticks of 10 ms are too coarse.
const SHORTEST: Duration = Duration::from_millis(200);

/// What a process has used of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    /// When the process began, in ticks since boot: a later one may get the same number.
    began: u64,
    ticks: u64,
}

/// The processes as last looked at.
#[derive(Debug)]
pub(super) struct Processors {
    vcpus: f64,
    last: BTreeMap<u32, (Instant, Used)>,
}

impl Processors {
    /// For VMs with so many processors each.
    pub(super) fn new(vcpus: u32) -> Self {
        Self { vcpus: vcpus.max(1).into(), last: BTreeMap::new() }
    }

    /// Share of the processors that was busy since the last call, mean over these
    /// processes; 1 is all. `None` while none of them was looked at before.
    pub(super) fn share(
        &mut self,
        processes: &[u32],
        now: Instant,
        used: impl Fn(u32) -> Option<Used>,
    ) -> Option<f64> {
        self.last.retain(|process, _| processes.contains(process));
        let shares: Vec<f64> =
            processes.iter().filter_map(|process| self.share_of(*process, now, used(*process)?)).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    fn share_of(&mut self, process: u32, now: Instant, used: Used) -> Option<f64> {
        let known = self.last.get(&process).copied().filter(|(_, before)| before.began == used.began);
        let Some((at, before)) = known else {
            self.last.insert(process, (now, used));
            return None;
        };
        let time = now.saturating_duration_since(at);
        if time < SHORTEST {
            return None;
        }
        self.last.insert(process, (now, used));
        let seconds = used.ticks.saturating_sub(before.ticks) as f64 / TICKS_PER_SECOND;
        // QEMU's own threads work beside the guest's.
        Some((seconds / time.as_secs_f64() / self.vcpus).min(1.0))
    }
}

/// What a process has used; `None` once it has ended.
pub(super) fn used(process: u32) -> Option<Used> {
    parse(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Fields 14, 15 and 22, counted after the name, which may hold blanks and parentheses.
fn parse(stat: &str) -> Option<Used> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let ticks = next()?.saturating_add(next()?);
    let began = fields.nth(6)?.parse().ok()?;
    Some(Used { began, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_process_is_called() {
        let line =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 3 0 9876 1000 200 18446744073709551615";
        assert_eq!(parse(line), Some(Used { began: 9876, ticks: 200 }));
        assert_eq!(parse(""), None);
        assert_eq!(parse("7 (a) S 1"), None);
        assert!(used(std::process::id()).is_some());
        assert_eq!(used(u32::MAX), None);
    }

    #[test]
    fn the_share_is_the_mean_of_those_that_were_looked_at_before() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut processors = Processors { vcpus: 2.0, last: BTreeMap::new() };
        let at = |ticks: u64| move |process: u32| Some(Used { began: 5, ticks: ticks * u64::from(process) });
        assert_eq!(processors.share(&[1, 2], start, at(0)), None);
        // 50 and 100 ticks of 200 that there were.
        assert_eq!(processors.share(&[1, 2, 3], start + second, at(50)), Some(0.375));
        assert_eq!(processors.share(&[1], start + second, at(60)), None, "too soon to tell");
        assert_eq!(processors.share(&[], start + second, at(60)), None);
    }

    #[test]
    fn a_later_process_of_the_same_number_is_another_one() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut processors = Processors::new(1);
        processors.share(&[1], start, |_| Some(Used { began: 5, ticks: 900 }));
        let share =
            |it: &mut Processors, at, began, ticks| it.share(&[1], at, |_| Some(Used { began, ticks }));
        assert_eq!(share(&mut processors, start + second, 6, 0), None);
        assert_eq!(share(&mut processors, start + second * 2, 6, 0), Some(0.0));
    }
}
