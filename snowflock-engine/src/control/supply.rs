//! Watches whether the pages that clones wait for still come.
//!
//! A thread asks the memtap of each checkpoint that has clones. Who cannot be asked, because it died and
//! no successor starts, supplies nothing either. What follows is the owner's affair.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::owner::Event;
use super::view::View;
use super::{MemoryServer, report};
use crate::memory::bitmap::PageBitmap;
use crate::memory::protocol::CheckpointId;

/// A page that a clone has waited for so long is taken for lost, if its source has said nothing meanwhile
/// (see [`crate::memory::supply`] for one that is slow). A request that needs it waits as long.
pub const PAGE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Watches for as long as the view is published.
///
/// # Errors
/// No thread is left.
pub(super) fn watch(view: watch::Receiver<Arc<View>>, tell: Sender<Event>) -> std::io::Result<()> {
    let run = move || {
        let mut unserved = Unserved::default();
        while view.has_changed().is_ok() {
            for (id, memtap) in in_need(&view.borrow()) {
                if let Some(why) = memtap.upgrade().and_then(|memtap| unserved.judge(id, &memtap))
                    && tell.send(Event::Starved(id, why)).is_err()
                {
                    return;
                }
            }
            std::thread::sleep(LOOK);
        }
    };
    std::thread::Builder::new().name("supply-watch".into()).spawn(run).map(drop)
}

/// Checkpoints with clones that may need more pages.
fn in_need(view: &View) -> Vec<(CheckpointId, Weak<MemoryServer>)> {
    let has_clones =
        |id| view.clones.iter().any(|clone| clone.checkpoint == Some(id) && clone.state.is_alive());
    let needy = view.checkpoints.iter().filter(|it| has_clones(it.id) && !is_whole(it.image.present()));
    needy.map(|it| (it.id, Arc::downgrade(&it.memtap))).collect()
}

/// Whether clones need neither source nor memtap any more. Zeros that are only known are given by a memtap.
fn is_whole(present: &PageBitmap) -> bool {
    present.count() == present.pages()
}

/// Since when memtaps cannot be asked.
#[derive(Default)]
struct Unserved(BTreeMap<CheckpointId, Instant>);

impl Unserved {
    /// Why the pages of a checkpoint are given up, if they are.
    fn judge(&mut self, id: CheckpointId, memtap: &Arc<MemoryServer>) -> Option<String> {
        match memtap.supply() {
            Ok(supply) => {
                self.0.remove(&id);
                supply.shortage(PAGE_LIMIT).map(|shortage| shortage.to_string())
            }
            Err(error) => {
                let since = *self.0.entry(id).or_insert_with(Instant::now);
                (since.elapsed() >= PAGE_LIMIT).then(|| report(&error))
            }
        }
    }
}
