//! The only `unsafe` of this crate: what the allocator offers beyond allocating.

/// Gives memory that this thread has freed back to the system. Costs some 10 us; memory is
/// otherwise kept for as long as the thread allocates nothing of its size.
///
/// The program's allocator is mimalloc; where another one is in force this does nothing.
#[allow(unsafe_code, reason = "a function of the C library behind mimalloc")]
pub(crate) fn give_back_freed_memory() {
    // SAFETY: mi_collect takes no pointer and may be called by any thread at any time; it
    // looks at the calling thread's own heap.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
