//! Where connections without a request wait: one per worker.
//!
//! A timer of tokio's and a place in a [`Notify`](tokio::sync::Notify) would be 176 bytes
//! for each of them; an entry here is 32. One task of the worker looks at all entries a few
//! times per limit, which is as exact as limits on time are here.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use slab::Slab;

use crate::net::Raw;

/// A connection that waits.
struct Waiting {
    until: Instant,
    /// `None` once its time is over.
    waker: Option<Waker>,
}

/// The connections that wait.
#[derive(Default)]
pub(crate) struct Parking {
    waiting: RefCell<Slab<Waiting>>,
}

impl Parking {
    /// Waits for bytes (or the end) on a socket until `until`; says whether they came.
    pub(crate) fn wait<'a>(&'a self, raw: &'a Raw, until: Instant) -> Parked<'a> {
        Parked { parking: self, raw, until, place: None }
    }

    /// Ends the wait of those whose time is over.
    pub(crate) fn look(&self, now: Instant) {
        for (_, waiting) in self.waiting.borrow_mut().iter_mut() {
            if waiting.until <= now {
                // Waking only puts the task in line: it looks at its entry later.
                waiting.waker.take().into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Nobody waits longer than until then.
    pub(crate) fn hurry(&self, until: Instant) {
        self.waiting
            .borrow_mut()
            .iter_mut()
            .for_each(|(_, waiting)| waiting.until = waiting.until.min(until));
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }
}

/// A wait. Its place is free again when it is dropped.
pub(crate) struct Parked<'a> {
    parking: &'a Parking,
    raw: &'a Raw,
    until: Instant,
    place: Option<usize>,
}

impl Future for Parked<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.raw.poll_read_ready(cx).is_ready() {
            return Poll::Ready(true);
        }
        let parking = self.parking;
        let mut waiting = parking.waiting.borrow_mut();
        match self.place {
            Some(place) => match &mut waiting[place].waker {
                Some(waker) => {
                    waker.clone_from(cx.waker());
                    Poll::Pending
                }
                None => Poll::Ready(false),
            },
            None => {
                let until = self.until;
                self.place = Some(waiting.insert(Waiting { until, waker: Some(cx.waker().clone()) }));
                Poll::Pending
            }
        }
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let mut waiting = self.parking.waiting.borrow_mut();
        self.place.take().into_iter().for_each(|place| drop(waiting.remove(place)));
        // After a crowd has gone its room goes, too.
        if waiting.capacity() > 1024 && waiting.len() < waiting.capacity() / 4 {
            waiting.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    #[test]
    fn an_entry_is_as_small_as_is_said_above() {
        assert_eq!(size_of::<Waiting>(), 32);
    }

    #[tokio::test]
    async fn bytes_end_the_wait_and_free_the_place() {
        let parking = Parking::default();
        let (mut far, near) = UnixStream::pair().unwrap();
        let near = Raw::Unix(near);
        let mut wait = parking.wait(&near, Instant::now() + Duration::from_secs(60));
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut wait).poll(cx))).await;
        assert!(first.is_pending() && !parking.is_empty());
        far.write_all(b"x").await.unwrap();
        assert!(wait.await);
        assert!(parking.is_empty());
    }

    #[tokio::test]
    async fn a_wait_ends_with_its_time_and_a_hurry_shortens_it() {
        let parking = Parking::default();
        let (_far, near) = UnixStream::pair().unwrap();
        let near = Raw::Unix(near);
        let now = Instant::now();
        let mut wait = parking.wait(&near, now + Duration::from_secs(60));
        for (looked_at, hurried, over) in [(59, None, false), (59, Some(58), true)] {
            let begun = poll_fn(|cx| Poll::Ready(Pin::new(&mut wait).poll(cx))).await;
            assert!(begun.is_pending());
            hurried.into_iter().for_each(|seconds| parking.hurry(now + Duration::from_secs(seconds)));
            parking.look(now + Duration::from_secs(looked_at));
            let ended = poll_fn(|cx| Poll::Ready(Pin::new(&mut wait).poll(cx))).await;
            assert_eq!(ended, if over { Poll::Ready(false) } else { Poll::Pending });
        }
        drop(wait);
        assert!(parking.is_empty());
    }
}
