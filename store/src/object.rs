//! The bytes of an object, read-only, wherever they lie. Knows nothing of how they got there.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

/// Verified bytes. Stays readable when the store drops the object meanwhile.
pub struct Object(Bytes);

enum Bytes {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    Mapped(Mmap, PathBuf),
}

impl Object {
    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        Object(Bytes::Owned(bytes))
    }
    pub(crate) fn shared(bytes: Arc<[u8]>) -> Self {
        Object(Bytes::Shared(bytes))
    }
    pub(crate) fn mapped(map: Mmap, path: PathBuf) -> Self {
        Object(Bytes::Mapped(map, path))
    }

    /// The file, if the object is one; small objects and those in memory have none.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Bytes::Mapped(_, path) => Some(path),
            Bytes::Owned(_) | Bytes::Shared(_) => None,
        }
    }
}

impl Deref for Object {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Owned(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
            Bytes::Mapped(map, _) => map,
        }
    }
}

impl AsRef<[u8]> for Object {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} bytes, {:?})", self.len(), self.path())
    }
}
