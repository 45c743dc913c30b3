//! Any bytes as a manifest, and as one whose signature is right: reading ends with an answer, and what it accepts is
//! written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipe::publish::{Link, Manifest, SecretKey};

fuzz_target!(|data: &[u8]| {
    Manifest::looks_like(data);
    if let Ok(manifest) = Manifest::from_bytes(data) {
        assert_eq!(manifest.to_bytes(), data);
        assert!(Manifest::looks_like(data));
    }
    // No input gets past the signature by chance: whatever else decodes is signed here.
    let Ok(draft) = serde_ipld_dagcbor::from_slice::<Manifest>(data) else { return };
    let key = SecretKey::random().expect("the system gives random bytes");
    let link = Link { previous: draft.previous, sequence: draft.sequence };
    let signed = draft.signed(&key, link);
    if let Ok(read) = Manifest::from_bytes(&signed.to_bytes()) {
        assert_eq!(read, signed);
    }
});
