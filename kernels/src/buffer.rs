//! Zeroed f32 memory on a cache-line boundary. The system hands out zero pages lazily, so a large buffer
//! costs what is touched of it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::ComputeError;

const ALIGN: usize = 64;

pub(crate) struct Buffer {
    at: NonNull<f32>,
    len: usize,
}

// SAFETY: a Buffer owns its memory, like a Vec<f32>.
unsafe impl Send for Buffer {}
// SAFETY: shared access gives out only shared slices and a pointer whose use is unsafe.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) const fn empty() -> Self {
        Self { at: NonNull::dangling(), len: 0 }
    }

    /// `len` zeros, or the size that could not be had.
    pub(crate) fn zeroed(len: usize) -> Result<Self, ComputeError> {
        if len == 0 {
            return Ok(Self::empty());
        }
        let fail = || ComputeError::Memory { bytes: len.saturating_mul(4) };
        let bytes = len.checked_mul(4).ok_or_else(fail)?;
        let layout = Layout::from_size_align(bytes, ALIGN).map_err(|_| fail())?;
        // SAFETY: the layout has a size above zero.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(fail)?;
        Ok(Self { at: at.cast(), len })
    }

    /// Room for `len` floats; what was held is lost when it must grow.
    pub(crate) fn ensure(&mut self, len: usize) -> Result<*mut f32, ComputeError> {
        if self.len < len {
            *self = Self::empty();
            *self = Self::zeroed(len)?;
        }
        Ok(self.at.as_ptr())
    }

    pub(crate) fn pointer(&self) -> *mut f32 {
        self.at.as_ptr()
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: `len` floats live at `at`, initialised since allocation; dangling only with len 0.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Buffer {
    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_slice`, and nobody else has the buffer.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, which was valid there.
            unsafe {
                dealloc(self.at.as_ptr().cast(), Layout::from_size_align_unchecked(self.len * 4, ALIGN))
            }
        }
    }
}
