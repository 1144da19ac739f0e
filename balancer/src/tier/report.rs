//! The engine's part of the status document.

use std::sync::Arc;
use std::time::{Duration, Instant};

use snowflock_engine::control::{Engine, ForkTimes, LifeState, View, VmView};

use super::numbers::{Counted, Numbers};
use crate::admin::status::{CloneStatus, EngineStatus, ForkStatus};
use crate::front::Handles;

/// Shows the engine before anything is counted.
pub(super) fn install(engine: &Engine, handles: &Handles) {
    install_numbers(engine, handles, Arc::default());
}

/// Shows the engine, with these counters.
pub(super) fn install_numbers(engine: &Engine, handles: &Handles, numbers: Arc<Numbers>) {
    let (view, choice) = (engine.view(), engine.accelerator().clone());
    let start = Instant::now().checked_sub(handles.board.uptime());
    handles.board.set_engine(move || EngineStatus {
        accelerator: choice.accelerator.name().to_owned(),
        accelerator_reason: choice.reason.clone(),
        ..status(&view.borrow(), &numbers.get(), start)
    });
}

/// `start` is when the process began; times of the document count from there.
fn status(view: &View, counted: &Counted, start: Option<Instant>) -> EngineStatus {
    let pauses: Vec<f64> = view.checkpoints.iter().map(|c| ms(c.pause.total())).collect();
    let forks: Vec<f64> = view.forks.iter().filter_map(|fork| fork.first_response).map(ms).collect();
    let living = |clone: &&VmView| clone.state != LifeState::Gone;
    EngineStatus {
        shells: view.shells,
        parent: view.parent.as_ref().map(|vm| vm_status(vm, view)).unwrap_or_default(),
        clones: view.clones.iter().filter(living).map(|vm| vm_status(vm, view)).collect(),
        boot_to_first_response_ms: view.parent.as_ref().and_then(|vm| vm.first_response).map(ms),
        parent_pause_ms: median(pauses),
        descriptor_bytes: view.checkpoints.last().map(|c| c.descriptor_bytes),
        fork_to_first_response_ms: median(forks.clone()),
        fork_to_first_response_all_ms: forks,
        forks: view.forks.iter().map(|fork| fork_status(fork, view, start)).collect(),
        pages_fetched: counted.sum(|pager| pager.fetched + pager.prefetched),
        ..EngineStatus::default()
    }
}

fn fork_status(fork: &ForkTimes, view: &View, start: Option<Instant>) -> ForkStatus {
    let began = view.clone_with(fork.id).map(|clone| clone.began);
    let since = began.zip(start).map(|(began, start)| began.saturating_duration_since(start));
    ForkStatus {
        id: fork.id.0,
        began_at_seconds: since.map(|since| since.as_secs_f64()),
        seeded_ms: ms(fork.seeded),
        running_ms: ms(fork.running),
        joined_ms: ms(fork.joined),
        first_response_ms: fork.first_response.map(ms),
    }
}

fn vm_status(vm: &VmView, view: &View) -> CloneStatus {
    let checkpoint = view.checkpoints.iter().find(|c| Some(c.id) == vm.checkpoint);
    let newest = view.checkpoints.last();
    let pages = checkpoint.or(newest).map_or(0, |c| u64::from(c.image.present().pages()));
    CloneStatus {
        id: vm.id.0,
        ip: vm.ip.to_string(),
        mac: vm.mac.to_string(),
        state: vm.state.to_string(),
        // A root parent has all of its pages.
        pages_present: checkpoint.map_or(pages, |c| u64::from(c.image.count())),
        pages_total: pages,
        pages_private: vm.memory.as_ref().and_then(|memory| memory.private_pages()),
        fork_to_first_response_ms: vm.checkpoint.and(vm.first_response).map(ms),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The middle value, or the mean of the two; `None` of nothing.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_of_nothing_is_not_zero() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
