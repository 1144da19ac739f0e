//! The system calls that the standard library does not offer, and memory aligned for `O_DIRECT`.
//!
//! The only module of this program with `unsafe` in it.
#![allow(unsafe_code)]

use std::io;

/// What direct reads from any disk here are content with.
const ALIGNMENT: usize = 4096;

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; ALIGNMENT]);

/// A buffer that begins at a page.
pub(crate) struct AlignedBuffer(Vec<Page>);

impl AlignedBuffer {
    /// At least `bytes` long.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(vec![Page([0; ALIGNMENT]); bytes.div_ceil(ALIGNMENT)])
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let length = self.0.len() * ALIGNMENT;
        // SAFETY: the pages are initialised, contiguous, without padding, and borrowed as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) }
    }
}

/// 32 bytes from the kernel's random generator.
pub(crate) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // SAFETY: the kernel writes at most 32 bytes into the array.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if count == 32 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_writable_to_its_end() {
        let mut buffer = AlignedBuffer::new(5000);
        let bytes = buffer.bytes();
        assert_eq!((bytes.as_ptr() as usize % ALIGNMENT, bytes.len()), (0, 8192));
        bytes.fill(7);
    }

    #[test]
    fn random_bytes_differ_from_call_to_call() {
        assert_ne!(random().expect("random"), random().expect("random"));
    }
}
