//! Bytes somebody else keeps alive: a mapped object, a mapped file, a buffer. Knows no format.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Shared, read-only bytes; cloning copies a pointer.
#[derive(Clone)]
pub struct Bytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Bytes {
    /// Takes anything that can show its bytes: `Vec<u8>`, `memmap2::Mmap`, an object of the store.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Bytes(Arc::new(owner))
    }
}

impl<T: AsRef<[u8]> + Send + Sync + 'static> From<Arc<T>> for Bytes {
    fn from(owner: Arc<T>) -> Self {
        Bytes(owner)
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}
